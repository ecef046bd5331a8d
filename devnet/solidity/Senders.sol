// SPDX-License-Identifier: AGPL-3.0-or-later
// Senders of the development network: coins that arrive, or do not, without a plain transaction to the address.
pragma solidity 0.8.30;

interface IToken {
    function transfer(address to, uint256 value) external;
}

/// Passes coins on by an internal call, which leaves no transaction to the receiver and no log.
contract Forwarder {
    function forward(address payable to) external payable {
        _pay(to, msg.value);
    }

    /// One transaction, several receivers.
    function split(address payable[] calldata to) external payable {
        for (uint256 i = 0; i < to.length; i++) {
            _pay(to[i], msg.value / to.length);
        }
    }

    /// Two transfers of this contract's own tokens in one transaction.
    function sendTwice(IToken token, address to, uint256 first, uint256 second) external {
        token.transfer(to, first);
        token.transfer(to, second);
    }

    function _pay(address payable to, uint256 value) private {
        (bool done, ) = to.call{value: value}("");
        require(done, "receiver refused");
    }
}

/// Sends coins and tokens, and then takes it all back by reverting; refuses coins sent to itself.
contract Reverter {
    function forward(address payable to) external payable {
        (bool done, ) = to.call{value: msg.value}("");
        require(done && false, "reverted on purpose");
    }

    function sendToken(IToken token, address to, uint256 value) external {
        token.transfer(to, value);
        revert("reverted on purpose");
    }

    receive() external payable {
        revert("reverted on purpose");
    }
}

/// Leaves its coins to the receiver by self-destruction: the receiver's code does not run, not even `receive`.
contract Legacy {
    constructor(address payable to) payable {
        selfdestruct(to);
    }
}
