# SPDX-License-Identifier: AGPL-3.0-or-later
"""A simulated EVM chain: balances, Safes' nonces and the relayer's, and an interpreter of its own for what a Safe is told to do.

It reads the very bytes that `custody.chains.evm` built: signatures are recovered over the hash at the Safe's present nonce, leaf by
leaf value and tokens move, and one that cannot takes the whole transaction with it (Safe 1.4.1 with no gas set: GS013).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, cast

from eth_abi.abi import decode
from eth_utils.address import to_checksum_address

from custody.chains.evm.leaves import library_hash
from custody.chains.evm.signatures import check_packed
from custody.rules.amounts import Asset, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef
from custody.rules.payouts import SafeTx
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Chain
from tests.simulation.blocks import Block, Chainlike

_EXECUTE: Final = (
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes",
)  # fmt: skip
TRANSFER: Final = bytes.fromhex("a9059cbb")
EXECUTE: Final = bytes.fromhex("6a761202")


@dataclass(frozen=True)
class Moved:
    """Base units that one call moved, and in whose name: the Safe's own, or a deposit Safe's for its omnibus."""

    symbol: str
    units: int
    source: str
    to: str


@dataclass(frozen=True)
class Outside:
    """Somebody pays, or a thief takes: coins move without a Safe's signatures. No source: they come from outside."""

    moves: tuple[Moved, ...]


@dataclass(frozen=True)
class Relayed:
    """The relayer's transaction around `execTransaction` of a Safe."""

    nonce: int
    safe: str
    call: bytes
    id: bytes
    price: int = 1
    """What it pays for gas, in a unit of the simulation's."""

    @property
    def raw(self) -> bytes:
        """Its bytes."""
        return self.nonce.to_bytes(8) + self.price.to_bytes(8) + bytes.fromhex(self.safe[2:]) + self.id + self.call

    @property
    def name(self) -> bytes:
        """Its hash."""
        return sha256(b"relayed" + self.raw).digest()

    @classmethod
    def read(cls, raw: bytes) -> "Relayed":
        """The transaction of these bytes."""
        safe = str(to_checksum_address("0x" + raw[16:36].hex()))
        return cls(int.from_bytes(raw[:8]), safe, raw[68:], raw[36:68], int.from_bytes(raw[8:16]))


@dataclass(frozen=True)
class Done:
    """What a Safe's transaction came to. `nonce` is the one it used; reverted it used none and moved nothing."""

    transaction: bytes
    safe: str
    nonce: int
    id: bytes
    tx: SafeTx
    moves: tuple[Moved, ...]
    reverted: bool = False


@dataclass(frozen=True)
class State:
    """After a block."""

    holdings: Mapping[tuple[str, str], int] = field(default_factory=dict)
    nonces: Mapping[str, int] = field(default_factory=dict)
    relayer: int = 0
    done: tuple[Done, ...] = ()
    """Of this block alone."""
    moves: tuple[tuple[bytes, Moved], ...] = ()
    """Of this block alone, with their transactions."""

    def holds(self, symbol: str, address: str) -> int:
        """Base units."""
        return self.holdings.get((symbol, address), 0)


Transaction = Outside | Relayed


class EvmChain(Chainlike[State, Transaction]):
    """The chain; certificates tell it which Safes there are, and `refusing` which addresses take nothing."""

    certificates: Mapping[str, WalletCertificate]
    assets: Assets
    refusing: set[str]
    price: int
    """What blocks ask for gas: a call that offers less waits, and everything of the relayer behind it."""

    @classmethod
    def made(
        cls,
        chain: Chain,
        seed: str,
        clock: Callable[[], int],
        assets: Assets,
        certificates: Sequence[WalletCertificate],
    ) -> "EvmChain":
        """A chain with these Safes deployed."""
        found = cls.__new__(cls)
        found.assets, found.refusing, found.price = assets, set(), 1
        found.certificates = {each.safe[0].address: each for each in certificates if each.safe}
        found.__init__(chain, seed, clock, State(), 4)  # type: ignore[misc]
        return found

    # blocks

    def fits(self, state: State, name: bytes, transaction: Transaction) -> bool:
        """A relayer's nonce is the next one and its price enough; a thief finds what he takes."""
        if isinstance(transaction, Relayed):
            return transaction.nonce == state.relayer and transaction.price >= self.price
        return all(not m.source or state.holds(m.symbol, m.source) >= m.units for m in transaction.moves)

    def dead(self, state: State, name: bytes, transaction: Transaction) -> bool:
        """Its nonce was used by another."""
        return isinstance(transaction, Relayed) and transaction.nonce < state.relayer

    def applied(self, state: State, transactions: dict[bytes, Transaction], ref: BlockRef) -> State:
        """Everything that these moved."""
        # the first of a block begins with nothing done in it
        fresh = not self.blocks or self.blocks[-1].state is state
        done, moves = ((), ()) if fresh else (state.done, state.moves)
        holdings, nonces, relayer = dict(state.holdings), dict(state.nonces), state.relayer
        for name, transaction in transactions.items():
            if isinstance(transaction, Relayed):
                relayer += 1
                one = self._executed(State(holdings, nonces), name, transaction)
                done += (one,)
                if one.reverted:
                    continue
                nonces[one.safe] = one.nonce + 1
                moved = one.moves
            else:
                moved = transaction.moves
            for each in moved:
                if each.source:
                    holdings[each.symbol, each.source] = holdings.get((each.symbol, each.source), 0) - each.units
                holdings[each.symbol, each.to] = holdings.get((each.symbol, each.to), 0) + each.units
            moves += tuple((name, each) for each in moved)
        return State(holdings, nonces, relayer, done, moves)

    def mine(self, besides: frozenset[bytes] = frozenset()) -> BlockRef:
        """A block in which nothing happened tells nothing of the one before."""
        before = self.state
        ref = super().mine(besides)
        block = self.blocks[-1]
        if block.state is before:
            state = State(before.holdings, before.nonces, before.relayer)
            self.blocks[-1] = Block(ref, block.transactions, state)
        return ref

    # Safes

    def _executed(self, state: State, name: bytes, relayed: Relayed) -> Done:
        certificate = self.certificates[relayed.safe]
        nonce = state.nonces.get(relayed.safe, 0)
        to, value, data, operation, *_, signatures = decode(_EXECUTE, relayed.call[4:])
        tx = self.safe_tx(certificate, str(to_checksum_address(to)), value, data, operation, nonce)
        digest = library_hash(tx)
        moves = None if list(check_packed(certificate, digest, signatures)) else self.run(state, certificate, tx)
        return Done(name, relayed.safe, nonce, digest, tx, moves or (), reverted=moves is None)

    @staticmethod
    def safe_tx(certificate: WalletCertificate, to: str, value: int, data: bytes, operation: int, nonce: int) -> SafeTx:
        """With every gas field at zero."""
        safe = certificate.safe[0].address
        return SafeTx(certificate.chain, safe, to, value, data, operation, 0, 0, 0, ZERO_ADDRESS, ZERO_ADDRESS, nonce)

    def run(self, state: State, certificate: WalletCertificate, tx: SafeTx) -> tuple[Moved, ...] | None:
        """What it moves leaf by leaf; None where one fails and takes all with it."""
        safe, holdings = certificate.safe[0].address, dict(state.holdings)
        moves: list[Moved] = []
        for to, value, data in self.calls(tx, certificate):
            moved = self._call(safe, to, value, data)
            if moved is None:
                if to == safe and not value and not data:
                    continue
                return None
            have = holdings.get((moved.symbol, moved.source), 0)
            if have < moved.units or moved.to in self.refusing:
                return None
            holdings[moved.symbol, moved.source] = have - moved.units
            holdings[moved.symbol, moved.to] = holdings.get((moved.symbol, moved.to), 0) + moved.units
            moves.append(moved)
        return tuple(moves)

    @staticmethod
    def calls(tx: SafeTx, certificate: WalletCertificate) -> list[tuple[str, int, bytes]]:
        """The plain calls of a transaction: itself, or those of a batch."""
        if tx.operation == 0:
            return [(tx.to, tx.value, tx.data)]
        if tx.to != certificate.safe[0].multisend:
            raise AssertionError(f"a delegatecall to {tx.to}")
        (packed,) = decode(["bytes"], tx.data[4:])
        found, at = [], 0
        while at < len(packed):
            size = int.from_bytes(packed[at + 53 : at + 85])
            to = str(to_checksum_address("0x" + packed[at + 1 : at + 21].hex()))
            data = packed[at + 85 : at + 85 + size]
            found.append((to, int.from_bytes(packed[at + 21 : at + 53]), data))
            at += 85 + size
        return found

    def _call(self, source: str, to: str, value: int, data: bytes) -> Moved | None:
        """One transfer; a deposit Safe runs its owner's call in its own name. None for a call that moves nothing."""
        if data[:4] == EXECUTE:
            inner_to, inner_value, inner, *_ = decode(_EXECUTE, data[4:])
            return self._call(to, str(to_checksum_address(inner_to)), inner_value, inner)
        if data[:4] == TRANSFER:
            receiver, units = cast("tuple[str, int]", decode(["address", "uint256"], data[4:]))
            token = next((a for a in self.assets.on(self.chain) if a.contract and a.contract.text == to), None)
            if token is None:
                return None
            return Moved(token.symbol, units, source, str(to_checksum_address(receiver)))
        return Moved(self.native.symbol, value, source, to) if value and not data else None

    @property
    def native(self) -> Asset:
        """The chain's own coin."""
        return next(asset for asset in self.assets.on(self.chain) if asset.contract is None)

    # what became of things

    def executions(self, safe: str = "") -> list[tuple[BlockRef, Done]]:
        """Every canonical execution, of one Safe or of all."""
        return [
            (block.ref, done) for block in self.blocks for done in block.state.done if not safe or done.safe == safe
        ]

    def pay(self, symbol: str, to: str, units: int, number: int, source: str = "") -> bytes:
        """Somebody's payment into the mempool."""
        name = sha256(f"{self.seed}/outside/{number}".encode()).digest()
        self.pool[name] = Outside((Moved(symbol, units, source, to),))
        return name
