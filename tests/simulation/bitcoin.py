# SPDX-License-Identifier: AGPL-3.0-or-later
"""A simulated bitcoind: blocks, coins and a mempool behind the JSON-RPC that custody's own Bitcoin adapters speak.

`BitcoinPayouts` and `BitcoinView` run over it as they are; only the node is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from embit.networks import NETWORKS  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import Transaction, TransactionInput, TransactionOutput  # type: ignore[import-untyped]

from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.psbts import vbytes
from custody.chains.bitcoin.rpc import NOT_FOUND, OUT_OF_RANGE, BitcoinRpc, Json, RpcError
from custody.chains.bitcoin.scripts import CHANGE, RECEIVE, derive_address, script_pubkey
from custody.chains.bitcoin.view import BitcoinView
from custody.chains.bitcoin.watching import branch_descriptor
from custody.rules.amounts import Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef
from custody.rules.payouts import CHANGE_WINDOW
from custody.rules.wallets import Address, Chain
from tests.simulation.blocks import Chainlike

_MISSING: Final = -25
_IN_CHAIN: Final = -27
_CONFLICT: Final = -26
_PLACES: Final = 24
"""Receive indices that are told apart: those of the customers and a few beyond."""
Outpoint = tuple[str, int]


@dataclass(frozen=True)
class Coin:
    """An unspent output."""

    units: int
    script: str
    height: int


@dataclass(frozen=True)
class Spend:
    """A transaction as the chain keeps it. `outside` are inputs that come from nowhere in particular."""

    raw: bytes
    inputs: tuple[Outpoint, ...]
    outputs: tuple[tuple[int, str], ...]
    outside: bool

    @classmethod
    def read(cls, raw: bytes, *, outside: bool = False) -> "Spend":
        """The transaction of these bytes."""
        tx = Transaction.parse(raw)
        return cls(
            raw,
            tuple((each.txid.hex(), int(each.vout)) for each in tx.vin),
            tuple((int(out.value), out.script_pubkey.data.hex()) for out in tx.vout),
            outside,
        )

    @property
    def name(self) -> bytes:
        """Its id as displayed."""
        return bytes(Transaction.parse(self.raw).txid())


@dataclass(frozen=True)
class State:
    """After a block. `spent` keeps what each coin was, for whoever asks about an input later."""

    coins: Mapping[Outpoint, Coin] = field(default_factory=dict)
    spent: Mapping[Outpoint, tuple[bytes, Coin]] = field(default_factory=dict)


class BitcoinNode(Chainlike[State, Spend]):
    """The chain, and the node's watch-only wallets."""

    assets: Assets
    wallets: Sequence[WalletCertificate]
    seen: dict[bytes, Spend]
    """Every transaction that the node ever heard of: its wallet forgets none."""
    places: dict[str, tuple[WalletCertificate, int, int]]
    rate: int
    """Satoshi for a virtual byte, as the node estimates."""
    thefts: set[bytes]
    """Transactions of thieves."""

    @classmethod
    def made(
        cls,
        chain: Chain,
        seed: str,
        clock: Callable[[], int],
        assets: Assets,
        certificates: Sequence[WalletCertificate],
    ) -> "BitcoinNode":
        """A chain whose node watches these wallets."""
        found = cls.__new__(cls)
        found.assets, found.wallets = assets, [each for each in certificates if each.script]
        found.seen, found.rate, found.thefts = {}, 2, set()
        found.places = _places(tuple(found.wallets))
        found.__init__(chain, seed, clock, State(), assets.confirmations[chain])  # type: ignore[misc]
        return found

    # blocks

    def fits(self, state: State, name: bytes, transaction: Spend) -> bool:
        """Every coin that it spends is there."""
        if transaction.outside:
            return True
        return all(each in state.coins for each in transaction.inputs)

    def dead(self, state: State, name: bytes, transaction: Spend) -> bool:
        """Another one of the chain spent a coin of it."""
        return not transaction.outside and any(
            each in state.spent and state.spent[each][0] != name for each in transaction.inputs
        )

    def applied(self, state: State, transactions: dict[bytes, Spend], ref: BlockRef) -> State:
        """Coins spent and made."""
        coins, spent = dict(state.coins), dict(state.spent)
        for name, transaction in transactions.items():
            for each in () if transaction.outside else transaction.inputs:
                spent[each] = name, coins.pop(each)
            for at, (units, script) in enumerate(transaction.outputs):
                coins[name.hex(), at] = Coin(units, script, ref.height)
        return State(coins, spent)

    # what a run does

    def pay(self, to: Address, units: int, number: int) -> bytes:
        """Somebody's payment into the mempool."""
        salt = sha256(f"{self.seed}/coin/{number}".encode()).digest()
        vin = [TransactionInput(salt, 0, sequence=0xFFFFFFFD)]
        tx = Transaction(2, vin, [TransactionOutput(units, Script(script_pubkey(to)))], 0)
        made = Spend.read(bytes(tx.serialize()), outside=True)
        self.seen[made.name] = self.pool[made.name] = made
        return made.name

    def steal(self, outpoint: Outpoint, number: int) -> bytes:
        """A thief who has every key takes a coin."""
        coin = self.state.coins[outpoint]
        vin = [TransactionInput(bytes.fromhex(outpoint[0]), outpoint[1], sequence=0xFFFFFFFD)]
        out = Script(b"\x00\x14" + sha256(f"thief {number}".encode()).digest()[:20])
        tx = Transaction(2, vin, [TransactionOutput(coin.units - 500, out)], 0)
        made = Spend.read(bytes(tx.serialize()))
        self._evict(made.inputs)
        self.thefts.add(made.name)
        self.seen[made.name] = self.pool[made.name] = made
        return made.name

    @staticmethod
    def address_of(script: str) -> str:
        """The address of a script; empty where it has none."""
        return _address(script) or ""

    def holds(self, addresses: Sequence[Address], height: int) -> int:
        """Satoshi on these addresses after the canonical block of a height."""
        scripts = {script_pubkey(address).hex() for address in addresses}
        return sum(coin.units for coin in self.blocks[height].state.coins.values() if coin.script in scripts)

    def coins_of(self, certificate: WalletCertificate) -> dict[Outpoint, Coin]:
        """A wallet's at the head."""
        mine = {script for script, place in self.places.items() if place[0] == certificate}
        return {outpoint: coin for outpoint, coin in self.state.coins.items() if coin.script in mine}

    def accept(self, raw: bytes) -> bytes:
        """A transaction into the mempool, as bitcoind takes one, whoever sends it. Raises RpcError."""
        made = Spend.read(raw)
        if self.place_of(made.name) is not None:
            raise RpcError("sendrawtransaction", _IN_CHAIN, "Transaction outputs already in utxo set")
        if made.name in self.pool:
            return made.name
        waiting = {(name.hex(), at) for name, tx in self.pool.items() for at in range(len(tx.outputs))}
        if any(each not in self.state.coins and each not in waiting for each in made.inputs):
            raise RpcError("sendrawtransaction", _MISSING, "bad-txns-inputs-missingorspent")
        rivals = [tx for tx in self.pool.values() if set(tx.inputs) & set(made.inputs)]
        if any(self.fee(tx) + vbytes(raw) > self.fee(made) for tx in rivals):
            raise RpcError("sendrawtransaction", _CONFLICT, "insufficient fee, rejecting replacement")
        self._evict(made.inputs)
        self.seen[made.name] = self.pool[made.name] = made
        return made.name

    def fee(self, spend: Spend) -> int:
        """What it leaves to the miner, as far as its coins are known; nothing of a stranger's."""
        if spend.outside:
            return 0
        before = sum(coin.units for each in spend.inputs if (coin := self.coin(each)) is not None)
        return before - sum(units for units, _ in spend.outputs)

    def coin(self, outpoint: Outpoint) -> Coin | None:
        """What an output is or was, on this branch or in a transaction that was heard of."""
        made = self.seen.get(bytes.fromhex(outpoint[0]))
        if made is None or outpoint[1] >= len(made.outputs):
            return None
        units, script = made.outputs[outpoint[1]]
        return Coin(units, script, 0)

    def place_of_coin(self, name: str) -> WalletCertificate | None:
        """Whose coin an outpoint `txid:vout` is."""
        txid, _, vout = name.partition(":")
        coin = self.coin((txid, int(vout)))
        place = None if coin is None else self.places.get(coin.script)
        return None if place is None else place[0]

    def _evict(self, inputs: Sequence[Outpoint]) -> None:
        for name in [name for name, tx in self.pool.items() if set(tx.inputs) & set(inputs)]:
            del self.pool[name]


_KNOWN: Final[dict[tuple[WalletCertificate, ...], dict[str, tuple[WalletCertificate, int, int]]]] = {}


def _places(wallets: tuple[WalletCertificate, ...]) -> dict[str, tuple[WalletCertificate, int, int]]:
    """Whose each script is; derived once a process."""
    if wallets not in _KNOWN:
        _KNOWN[wallets] = {
            script_pubkey(derive_address(wallet, branch, index)).hex(): (wallet, branch, index)
            for wallet in wallets
            for branch, last in ((RECEIVE, _PLACES), (CHANGE, CHANGE_WINDOW))
            for index in range(last)
        }
    return _KNOWN[wallets]


class _Rpc(BitcoinRpc):
    """Answers as bitcoind would, out of a `BitcoinNode`."""

    def __init__(self, node: BitcoinNode) -> None:
        self.chain, self._node = node.chain, node

    def call(self, method: str, *params: Json, wallet: str | None = None) -> Json:
        """See `BitcoinRpc`."""
        found: Json = self._answer(method, params, wallet)
        return found

    def batch(self, method: str, parameters: Sequence[Sequence[Json]], wallet: str | None = None) -> list[Json]:
        """See `BitcoinRpc`."""
        return [self._answer(method, params, wallet) for params in parameters]

    def _answer(self, method: str, params: Sequence[Any], wallet: str | None) -> Any:
        answer: Callable[..., Any] = getattr(self, f"_{method}")
        return answer(*params) if wallet is None else answer(*params, wallet=self._named(wallet))

    def _named(self, wallet: str) -> WalletCertificate:
        return next(each for each in self._node.wallets if wallet == f"bulkhead-{each.label}")

    # blocks

    def _getbestblockhash(self) -> str:
        return self._node.blocks[-1].ref.hash.hex()

    def _getblockhash(self, height: int) -> str:
        if not 0 <= height <= self._node.height:
            raise RpcError("getblockhash", OUT_OF_RANGE, "Block height out of range")
        return self._node.blocks[height].ref.hash.hex()

    def _getblockheader(self, name: str) -> dict[str, Any]:
        ref = self._node.known.get(bytes.fromhex(name))
        if ref is None:
            raise RpcError("getblockheader", NOT_FOUND, "Block not found")
        canonical = self._node.at(ref) is not None
        depth = self._node.height - ref.height + 1 if canonical else -1
        body: dict[str, Any] = {"hash": name, "height": ref.height, "time": ref.time, "confirmations": depth}
        return body | ({"previousblockhash": ref.parent.hex()} if ref.height else {})

    def _getblock(self, name: str, _verbosity: int) -> dict[str, Any]:
        body = self._getblockheader(name)
        if body["confirmations"] < 0:
            raise RpcError("getblock", NOT_FOUND, "Block not found")
        block = self._node.blocks[body["height"]]
        return body | {"tx": [self._told(each, tx) for each, tx in block.transactions.items()]}

    def _getrawtransaction(self, txid: str, _verbose: object, block: str) -> dict[str, Any]:
        ref = self._node.known.get(bytes.fromhex(block))
        if ref is None or self._node.at(ref) is None:
            raise RpcError("getrawtransaction", NOT_FOUND, "Block hash not found")
        found = self._node.blocks[ref.height].transactions.get(bytes.fromhex(txid))
        if found is None:
            raise RpcError("getrawtransaction", NOT_FOUND, "No such transaction found in the provided block")
        return self._told(bytes.fromhex(txid), found) | {"in_active_chain": True}

    def _told(self, name: bytes, tx: Spend) -> dict[str, Any]:
        inputs = []
        for txid, vout in tx.inputs:
            coin = self._node.coin((txid, vout)) or Coin(10**6, "0014" + "11" * 20, 0)
            inputs.append({"txid": txid, "vout": vout, "prevout": self._output(0, coin.units, coin.script)})
        outputs = [self._output(at, units, script) for at, (units, script) in enumerate(tx.outputs)]
        return {"txid": name.hex(), "hex": tx.raw.hex(), "vin": inputs, "vout": outputs}

    def _output(self, at: int, units: int, script: str) -> dict[str, Any]:
        return {"n": at, "value": _btc(units), "scriptPubKey": {"hex": script, "address": _address(script)}}

    # coins

    def _gettxout(self, txid: str, vout: int, _mempool: bool) -> dict[str, Any] | None:
        coin = self._node.state.coins.get((txid, vout))
        if coin is None:
            return None
        depth = self._node.height - coin.height + 1
        return {"confirmations": depth, "value": _btc(coin.units), **self._output(vout, coin.units, coin.script)}

    def _listunspent(
        self, least: int, _most: int, _addresses: object, *, wallet: WalletCertificate
    ) -> list[dict[str, Any]]:
        waiting = {each for tx in self._node.pool.values() for each in tx.inputs}
        return [
            {
                "txid": txid,
                "vout": vout,
                "amount": _btc(coin.units),
                "scriptPubKey": coin.script,
                "desc": self._desc(coin.script),
            }
            for (txid, vout), coin in self._node.coins_of(wallet).items()
            if (txid, vout) not in waiting and self._node.height - coin.height + 1 >= least
        ]

    def _gettransaction(self, txid: str, *, wallet: WalletCertificate) -> dict[str, Any]:
        name = bytes.fromhex(txid)
        found = self._node.seen.get(name)
        if found is None or not self._concerns(found, wallet):
            raise RpcError("gettransaction", NOT_FOUND, "Invalid or non-wallet transaction id")
        place = self._node.place_of(name)
        spent = self._node.state.spent
        rivals = [
            spent[each][0].hex()
            for each in found.inputs
            if not found.outside and each in spent and spent[each][0] != name
        ]
        depth = self._node.height - place.height + 1 if place is not None else -1 if rivals else 0
        body: dict[str, Any] = {"txid": txid, "hex": found.raw.hex(), "confirmations": depth, "walletconflicts": rivals}
        if place is not None:
            body |= {"blockheight": place.height, "blockhash": place.hash.hex()}
        return body | {"fee": -_btc(self._node.fee(found))}

    def _concerns(self, spend: Spend, wallet: WalletCertificate) -> bool:
        scripts = {script for _, script in spend.outputs}
        scripts |= {coin.script for each in spend.inputs if (coin := self._node.coin(each)) is not None}
        return any(script in self._node.places and self._node.places[script][0] == wallet for script in scripts)

    def _getaddressinfo(self, address: str, *, wallet: WalletCertificate) -> dict[str, Any]:
        return {"desc": self._desc(script_pubkey(Address(self.chain, address)).hex())}

    def _desc(self, script: str) -> str:
        place = self._node.places.get(script)
        return "wsh()" if place is None else f"wsh([0/{place[1]}/{place[2]}])"

    # the mempool

    def _getmempoolinfo(self) -> dict[str, Any]:
        return {"mempoolminfee": Decimal("0.00001"), "incrementalrelayfee": Decimal("0.00001")}

    def _estimatesmartfee(self, _blocks: int) -> dict[str, Any]:
        return {"feerate": _btc(self._node.rate * 1_000)}

    def _getmempoolentry(self, txid: str) -> dict[str, Any]:
        if bytes.fromhex(txid) not in self._node.pool:
            raise RpcError("getmempoolentry", NOT_FOUND, "Transaction not in mempool")
        return {}

    def _sendrawtransaction(self, raw: str) -> str:
        made = bytes.fromhex(raw)
        self._node.sent(made, lambda: _done(self._node.accept(made)))
        return Spend.read(made).name.hex()

    def _decoderawtransaction(self, raw: str) -> dict[str, Any]:
        return {"vsize": vbytes(bytes.fromhex(raw))}

    # wallets

    def _loadwallet(self, _name: str) -> dict[str, Any]:
        return {}

    def _getwalletinfo(self, *, wallet: WalletCertificate) -> dict[str, Any]:
        return {"private_keys_enabled": False}

    def _listdescriptors(self, *, wallet: WalletCertificate) -> dict[str, Any]:
        used = [
            place[2]
            for spend in self._node.seen.values()
            for _, script in spend.outputs
            if (place := self._node.places.get(script)) is not None and place[:2] == (wallet, CHANGE)
        ]
        following = {RECEIVE: 0, CHANGE: max(used, default=-1) + 1}
        return {
            "descriptors": [
                {"desc": branch_descriptor(wallet, branch), "range": [0, 9_999], "next_index": index}
                for branch, index in following.items()
            ]
        }


def node_view(node: BitcoinNode) -> BitcoinView:
    """Custody's own view of it."""
    return BitcoinView(_Rpc(node), node.assets)


def node_payouts(node: BitcoinNode) -> BitcoinPayouts:
    """Custody's own payouts over it."""
    return BitcoinPayouts(_Rpc(node), node.assets)


def _done(_: object) -> None:
    """What came of it nobody asks."""


def _btc(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


def _address(script: str) -> str | None:
    try:
        return str(Script(bytes.fromhex(script)).address(NETWORKS["regtest"]))
    except ValueError:
        return None
