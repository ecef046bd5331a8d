# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a mined Bitcoin payout did, from its block alone: what it spent, with each coin's value and script, and what it made.

bitcoind answers spent coins out of its undo data (`getrawtransaction` with verbosity 2): no wallet and no txindex are needed, but
a node that pruned the block cannot tell. Whose a script is follows from certificates, never from the node.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from custody.chains.bitcoin.blocks import parse_transaction, read_hash
from custody.chains.bitcoin.rpc import NOT_FOUND, BitcoinRpc, Json, RpcError, as_list, as_object, as_text, satoshi
from custody.chains.bitcoin.scripts import script_pubkey
from custody.rules.amounts import Asset
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.executions import Execution, Moved, check_execution, wallet_account
from custody.rules.intents import TransferIntent
from custody.rules.ledger import AccountKind
from custody.rules.origins import Executed
from custody.rules.provenance import Holding, HoldingOf
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Address, Chain


@dataclass(frozen=True, slots=True)
class _Coin:
    """An output, made or spent: satoshi, its script in hex, and its address where it has one."""

    units: int
    script: str
    address: Address | None


@dataclass(frozen=True, slots=True)
class _Spend:
    """A transaction of a block with the coins that it spent, by outpoint."""

    spent: tuple[tuple[str, _Coin], ...]
    made: tuple[_Coin, ...]


def confirm_executed(
    rpc: BitcoinRpc, asset: Asset, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
) -> Refusal | None:
    """See `PayoutReader`."""
    try:
        _check_block(rpc, executed)
        found = _execution(_read(rpc, executed), asset, executed, holding_of)
    except Refused as error:
        return error.refusals[0]
    return check_execution(executed, intents, found, holding_of)


def _check_block(rpc: BitcoinRpc, executed: Executed) -> None:
    """Canonical, at that height. A node that has not reached the height cannot tell."""
    canonical = read_hash(rpc, executed.height)
    if canonical is None:
        raise Unavailable(f"block {executed.height} of {rpc.chain}", "the node has not reached it")
    if canonical != executed.block:
        raise _refused("block", executed.block.hex(), canonical.hex())


def _read(rpc: BitcoinRpc, executed: Executed) -> _Spend:
    """The transaction of that block. Raises Refused where it is none of it, Unavailable where spent coins are not told."""
    try:
        answer = rpc.call("getrawtransaction", executed.transaction.hex(), 2, executed.block.hex())
    except RpcError as error:
        if error.code == NOT_FOUND:
            raise _refused("transaction", executed.transaction.hex(), "a transaction of that block") from error
        raise
    body = as_object(answer, "getrawtransaction")
    if body.get("in_active_chain") is not True:
        raise Unavailable(f"block {executed.height} of {rpc.chain}", "the chain reorganised while it was read")
    transaction = parse_transaction(body)
    if transaction.coinbase:
        raise _refused("transaction", "a coinbase", "a payout")
    inputs = [as_object(each, "vin") for each in as_list(body.get("vin"), "vin")]
    outputs = [as_object(each, "vout") for each in as_list(body.get("vout"), "vout")]
    return _Spend(
        tuple(
            (f"{txid}:{vout}", _coin(rpc.chain, as_object(each.get("prevout"), "vin.prevout")))
            for (txid, vout), each in zip(transaction.spends, inputs, strict=True)
        ),
        tuple(_coin(rpc.chain, each) for each in outputs),
    )


def _coin(chain: Chain, body: dict[str, Json]) -> _Coin:
    """The address is the node's word; it counts only where it makes this very script."""
    script = as_object(body.get("scriptPubKey"), "scriptPubKey")
    data, text = as_text(script.get("hex"), "scriptPubKey.hex"), script.get("address")
    address = None
    if isinstance(text, str):
        try:
            address = Address.parse(chain, text)
        except InvalidInput as error:
            raise Unavailable("bitcoind", f"it answered {text[:80]!r} for an address") from error
        if script_pubkey(address).hex() != data:
            raise Unavailable("bitcoind", f"its address {text} does not make the script {data}")
    return _Coin(satoshi(body.get("value"), "value"), data, address)


def _execution(tx: _Spend, asset: Asset, executed: Executed, holding_of: HoldingOf) -> Execution:
    """Raises Refused: the anchor is not among its inputs, an input is not the wallet's, an output pays no address."""
    ours = wallet_account(executed)
    source: Holding | None = None
    for outpoint, coin in tx.spent:
        holding = holding_of(coin.address) if coin.address is not None else None
        if holding is None or holding.wallet != ours:
            raise _refused("inputs", outpoint, f"coins of {ours}")
        source = holding if outpoint == executed.anchor.reference else source
    if source is None:
        raise _refused("anchor", executed.anchor.reference, f"one of {[outpoint for outpoint, _ in tx.spent]}")
    payments, returned = list[Moved](), list[Moved]()
    for coin in tx.made:
        if coin.address is None:
            raise _refused("outputs", coin.script, "an address")
        at = holding_of(coin.address)
        back = at is not None and at.wallet == ours
        if back and at is not None and at.owner.kind is AccountKind.CUSTOMER_AVAILABLE:
            # Change or a void at a customer's address: the watcher credited the customer the wallet's own coins.
            raise _refused("outputs", coin.address.text, "an address of the wallet that no customer is bound to")
        (returned if back else payments).append(Moved(asset.symbol, coin.units, coin.address))
    fee = sum(coin.units for _, coin in tx.spent) - sum(coin.units for coin in tx.made)
    # One outpoint back into its wallet, and nobody's there. Which change address it is, the seats saw to.
    void = len(tx.spent) == len(returned) == 1 and not payments
    return Execution(source, tuple(payments), tuple(returned), fee, void)


def _refused(field: str, got: object, want: str) -> Refused:
    return Refused([Refusal(Rule.ORIGIN, field=field, got=got, want=want)])
