// SPDX-License-Identifier: AGPL-3.0-or-later
// Tokens of the development network. Minimal, and each wrong in exactly one documented way. They carry no value anywhere.
pragma solidity 0.8.30;

/// Balances, allowances and supply; what a transfer says and returns is left to each token.
abstract contract Ledger {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    string public name;
    string public symbol;
    uint8 public immutable decimals;
    address public immutable minter;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        (name, symbol, decimals, minter) = (name_, symbol_, decimals_, msg.sender);
    }

    function mint(address to, uint256 value) external {
        require(msg.sender == minter, "minter only");
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function _move(address from, address to, uint256 value) internal virtual {
        require(to != address(0), "zero address");
        require(balanceOf[from] >= value, "balance");
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }

    function _spend(address owner, uint256 value) internal {
        require(allowance[owner][msg.sender] >= value, "allowance");
        allowance[owner][msg.sender] -= value;
    }

    function _approve(address spender, uint256 value) internal {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
    }
}

/// ERC-20 as the standard has it (EIP-20): a bool comes back.
contract Dollar is Ledger {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) Ledger(name_, symbol_, decimals_) {}

    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        _spend(from, value);
        _move(from, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        _approve(spender, value);
        return true;
    }
}

/// As USDT on Ethereum: transfer, transferFrom and approve return no data at all.
contract SilentDollar is Ledger {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) Ledger(name_, symbol_, decimals_) {}

    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        _spend(from, value);
        _move(from, to, value);
    }

    function approve(address spender, uint256 value) external {
        _approve(spender, value);
    }
}

/// Takes one hundredth of every transfer for the minter, and logs the full value: less arrives than the log says.
contract FeeDollar is Dollar {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) Dollar(name_, symbol_, decimals_) {}

    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value);
        uint256 fee = value / 100;
        balanceOf[to] -= fee;
        balanceOf[minter] += fee;
    }
}

/// Logs every transfer and moves nothing; needs no balance.
contract LyingDollar is Dollar {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) Dollar(name_, symbol_, decimals_) {}

    function _move(address from, address to, uint256 value) internal override {
        emit Transfer(from, to, value);
    }
}
