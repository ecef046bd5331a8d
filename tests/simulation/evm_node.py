# SPDX-License-Identifier: AGPL-3.0-or-later
"""The simulated EVM chain as custody's ports see it: `ChainView` with its readers, and `PayoutChain` with the relayer.

Payloads are built and put together by the code of `custody.chains.evm`; only the node behind it is simulated.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from custody.chains.evm.leaves import execute_data, library_hash, payment_call, safe_tx, sweep_call
from custody.chains.evm.safes import deposit_safe, owner_address
from custody.chains.evm.signatures import pack
from custody.rules.amounts import Amount, Asset
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import Unavailable
from custody.rules.executions import Execution, check_execution
from custody.rules.executions import Moved as Told
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.origins import ChainProof, Executed, NativeProof, TokenProof, identity_of
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Mined,
    Outcome,
    Paid,
    Payment,
    Pending,
    Replaced,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    Unknown,
    UnsignedPayout,
    none_credited,
)
from custody.rules.payouts import SafeTx, void_safe_tx
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.statements import SafeState
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Address, Chain
from tests.simulation.evm import EvmChain, Relayed


class EvmNodeView:
    """`ChainView`, `SafeReader` and `PayoutReader`."""

    def __init__(self, node: EvmChain) -> None:
        self._node = node

    @property
    def chain(self) -> Chain:
        """See `ChainView`."""
        return self._node.chain

    def head(self) -> BlockRef:
        """See `ChainView`."""
        return self._node.blocks[-1].ref

    def final(self) -> BlockRef:
        """See `ChainView`."""
        return self._node.blocks[self._node.final_height].ref

    def block(self, height: int) -> BlockRef | None:
        """See `ChainView`."""
        return self._node.blocks[height].ref if height < len(self._node.blocks) else None

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """See `ChainView`."""
        if last > self._node.height:
            raise Unavailable(f"block {last} of {self.chain}", f"the head is {self._node.height}")
        ours = {address.text: address for address in watched}
        return [each for height in range(max(first, 1), last + 1) for each in self._arrivals(height, ours)]

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """See `ChainView`."""
        if proof.height > self._node.height and proof.block not in self._node.known:
            raise Unavailable(f"block {proof.height} of {self.chain}", f"the head is {self._node.height}")
        block = self.block(proof.height)
        if block is None or block.hash != proof.block:
            return Refusal(
                Rule.ORIGIN, field="block", got=proof.block.hex(), want=block.hash.hex() if block else "none"
            )
        ours = {proof.address: Address(self.chain, proof.address)}
        found = {each.identity: each.proof for each in self._arrivals(proof.height, ours)}.get(identity_of(proof))
        return None if found == proof else Refusal(Rule.ORIGIN, field="event", got=proof, want=found)

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """See `ChainView`."""
        state = self._node.at(at)
        if state is None:
            raise Unavailable(f"block {at.height} of {self.chain}", f"{at.hash.hex()} is not canonical")
        return sum(state.holds(asset.symbol, address.text) for address in set(addresses))

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """See `SafeReader`: as certified, whatever happens."""
        state, safe = self._node.at(at), certificate.safe[0]
        if state is None:
            raise Unavailable(f"block {at.height} of {self.chain}", f"{at.hash.hex()} is not canonical")
        return SafeState(
            wallet=wallet,
            chain=certificate.chain,
            address=safe.address,
            deployed=True,
            nonce=state.nonces.get(safe.address, 0),
            owners=tuple(owner_address(seat.key.public) for seat in certificate.seats),
            threshold=certificate.m,
            singleton=safe.singleton,
            handler=safe.handler,
            guard=ZERO_ADDRESS,
            modules=(),
        )

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """See `PayoutReader`: by what the chain did, and custody's own rule."""
        block = self.block(executed.height)
        if block is None:
            raise Unavailable(f"block {executed.height} of {self.chain}", "the node has not reached it")
        if block.hash != executed.block:
            return Refusal(Rule.ORIGIN, field="block", got=executed.block.hex(), want=block.hash.hex())
        done = next(
            (d for ref, d in self._node.executions() if ref == block and d.transaction == executed.transaction), None
        )
        source = None if done is None else holding_of(Address(self.chain, done.safe))
        if done is None or source is None or done.reverted or str(done.nonce) != executed.anchor.reference:
            return Refusal(Rule.ORIGIN, field="transaction", got=executed.transaction.hex(), want="one of that block")
        told = [Told(m.symbol, m.units, Address(self.chain, m.to)) for m in done.moves if m.source == done.safe]
        back = [Told(m.symbol, m.units, Address(self.chain, m.to)) for m in done.moves if m.source != done.safe]
        void = done.tx == void_safe_tx(done.tx.chain, done.safe, done.nonce)
        found = Execution(source, tuple(told), tuple(back), 0, void)
        return check_execution(executed, intents, found, holding_of)

    def _arrivals(self, height: int, ours: dict[str, Address]) -> list[Sighting]:
        """Native coin by the difference of balances; a token by each of its transfers."""
        block, before = self._node.blocks[height], self._node.blocks[height - 1].state
        sent: Counter[str] = Counter()
        native = self._node.native
        for done in block.state.done:
            for moved in done.moves:
                sent[moved.source] += moved.units * (moved.symbol == native.symbol)
        found: list[Sighting] = []
        where = (self.chain.name, height, block.ref.hash)
        for text in dict.fromkeys(m.to for _, m in block.state.moves if m.symbol == native.symbol and m.to in ours):
            held = before.holds(native.symbol, text), block.state.holds(native.symbol, text)
            arrived = held[1] - held[0] + sent[text]
            if arrived > 0:
                native_proof = NativeProof(*where, text, *held, sent[text])
                found.append(Sighting(Amount(native, arrived), ours[text], native_proof))
        for number, (name, moved) in enumerate(block.state.moves):
            if moved.symbol == native.symbol or moved.to not in ours:
                continue
            asset = self._node.assets.get(moved.symbol)
            contract = asset.contract.text if asset.contract else ""
            proof = TokenProof(*where, name, number, contract, moved.to, moved.units, moved.units)
            found.append(Sighting(Amount(asset, moved.units), ours[moved.to], proof))
        return found


class Payer(Protocol):
    """The relayer's own process: whoever pays for gas."""

    def sign_call(self, call: Relayed) -> bytes:
        """The signed transaction; raises Refused above its cap."""
        ...


class EvmNodePayouts:
    """`PayoutChain`, `FeeBumper` and `DepositSweeper`."""

    def __init__(self, node: EvmChain, relay: Payer) -> None:
        self._node, self._relay = node, relay

    @property
    def chain(self) -> Chain:
        """See `PayoutChain`."""
        return self._node.chain

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """See `PayoutChain`."""
        return ()

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `PayoutChain`."""
        nonce = self._node.state.nonces.get(certificate.safe[0].address, 0)
        while str(nonce) in taken:
            nonce += 1
        return Reservation(Anchor(certificate.chain, wallet, str(nonce)), (str(nonce),), 0)

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """See `PayoutChain`; tried on the head before anybody is asked."""
        calls = [sweep_call(sweep, certificate, self._node.assets) for sweep in sweeps]
        calls += [payment_call(payment, self._node.assets, self.chain) for payment in payments]
        for count in range(1, len(calls) + 1):
            tried = safe_tx(certificate, 0, calls[:count])
            if self._node.run(self._node.state, certificate, tried) is None:
                raise Refused([Refusal(Rule.LEAF_FAILS, leaf=count - 1, name=calls[count - 1].name, why="reverts")])
        tx = safe_tx(certificate, int(reservation.anchor.reference), calls)
        paid = tuple(Paid(p.intent, p.asset, p.units, p.destination.text, 0) for p in payments)
        return UnsignedPayout(library_hash(tx), reservation.anchor, certificate.struct_hash, tx, paid, 0, 100)

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """See `PayoutChain`."""
        tx = void_safe_tx(certificate.chain, certificate.safe[0].address, int(anchor.reference))
        return UnsignedPayout(library_hash(tx), anchor, certificate.struct_hash, tx, (), 0, 100)

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """See `PayoutChain`."""
        tx = unsigned.payload
        assert isinstance(tx, SafeTx)
        raw = execute_data(tx.to, tx.value, tx.data, tx.operation, pack(certificate, library_hash(tx), signatures))
        return SignedPayout(unsigned.id, unsigned.anchor, raw, unsigned.size)

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """See `PayoutChain`: at the nonce that the node expects next of the relayer."""
        safe, nonce = certificate.message.safe[0].address, int(signed.anchor.reference)
        now = self._node.state.nonces.get(safe, 0)
        if now > nonce:
            raise Refused([Refusal(Rule.ANCHOR_SPENT, anchor=nonce, nonce=now)])
        used = {tx.nonce for tx in self._node.pool.values() if isinstance(tx, Relayed)}
        free = self._node.state.relayer
        while free in used:
            free += 1
        return self._signed(Relayed(free, safe, signed.raw, signed.id, self._node.price), signed)

    def _signed(self, call: Relayed, signed: SignedPayout) -> Envelope:
        made = Relayed.read(self._relay.sign_call(call))
        return Envelope(signed.id, made.name, signed.anchor, made.raw)

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """See `FeeBumper`: a SafeTx has no fee."""

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """See `FeeBumper`: the relayer's same nonce for more."""
        nonce, old = int(signed.anchor.reference), Relayed.read(last.raw)
        now = self._node.state.nonces.get(certificate.message.safe[0].address, 0)
        if now > nonce:
            raise Refused([Refusal(Rule.ANCHOR_SPENT, anchor=nonce, nonce=now)])
        if old.nonce < self._node.state.relayer:
            raise Refused([Refusal(Rule.ENVELOPE_STALE, nonce=old.nonce, relayer=self._node.state.relayer)])
        if old.price >= self._node.price:
            return None
        return self._signed(replace(old, price=max(-(-old.price * 9 // 8), self._node.price * 2)), signed)

    def broadcast(self, envelope: Envelope) -> None:
        """See `PayoutChain`."""
        self._node.sent(envelope.raw, lambda: self._take(Relayed.read(envelope.raw)))

    def _take(self, made: Relayed) -> None:
        if self._node.place_of(made.name) is not None or made.name in self._node.pool:
            return
        if made.nonce < self._node.state.relayer:
            raise_if([Refusal(Rule.ENVELOPE_STALE, nonce=made.nonce, relayer=self._node.state.relayer)])
        rivals = {n: tx for n, tx in self._node.pool.items() if isinstance(tx, Relayed) and tx.nonce == made.nonce}
        if any(tx.price * 11 > made.price * 10 for tx in rivals.values()):
            raise Unavailable(f"the node of {self.chain}", "replacement transaction underpriced")
        for name in rivals:
            del self._node.pool[name]
        self._node.pool[made.name] = made

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """See `PayoutChain`: by the Safe's nonce and its events."""
        safe, nonce = certificate.safe[0].address, int(envelopes[0].anchor.reference)
        ids = {envelope.id for envelope in envelopes}
        found = [(ref, done) for ref, done in self._node.executions(safe)]
        for ref, done in found:
            if not done.reverted and done.nonce == nonce:
                if done.id not in ids:
                    return Replaced(done.transaction)
                return Mined(done.id, done.transaction, ref.height, ref.hash, Outcome.DONE, 21, 100)
        reverted: Mined | None = None
        for envelope in envelopes:
            place = next((ref for ref, done in found if done.transaction == envelope.transaction), None)
            if place is not None:
                reverted = Mined(envelope.id, envelope.transaction, place.height, place.hash, Outcome.REVERTED, 21, 100)
            elif envelope.transaction in self._node.pool:
                return Pending(envelope.transaction)
        return reverted or Unknown()

    def sweepable(self, certificate: WalletCertificate, indices: Sequence[int]) -> tuple[Sweep, ...]:
        """See `DepositSweeper`."""
        final = self._node.blocks[self._node.final_height].state
        found: list[Sweep] = []
        for asset in self._node.assets.on(self.chain):
            for index in indices:
                units = final.holds(asset.symbol, deposit_safe(certificate, index).text)
                if units >= max(1, asset.dust):
                    found.append(Sweep(index, asset.symbol, units))
        return tuple(found)

    def deploy_deposits(self, certificate: Signed[WalletCertificate], indices: Sequence[int]) -> None:
        """See `DepositSweeper`: a simulated deposit Safe is always there."""
