# SPDX-License-Identifier: AGPL-3.0-or-later
"""`PayoutChain` for Bitcoin: one PSBT for each payout, and bitcoinlib's word on every transaction before it leaves.

The anchor is the first outpoint; every variant spends the same coins in the same order and has the same change address, so that
only the fee differs (TRUST.md, "One anchor per payout").
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from custody.chains.bitcoin import psbts, second
from custody.chains.bitcoin.coins import CHANGE_LEAST, Coin, Selection, Shape, join, select, settle, split_fee
from custody.chains.bitcoin.psbts import REPLACEABLE, Target
from custody.chains.bitcoin.rpc import BitcoinRpc, RpcError
from custody.chains.bitcoin.scripts import CHANGE, change_address, check_script, derive_address, script_pubkey
from custody.chains.bitcoin.spending import WatchedWallet, fee_rate, read_outpoint, replacing_rate, unspent, worst
from custody.rules.amounts import AssetKind, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.housekeeping import Consolidation
from custody.rules.intents import Anchor
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Mined,
    Paid,
    Payment,
    Replaced,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    Unknown,
    UnsignedPayout,
    none_credited,
)
from custody.rules.payouts import VOID_CHANGE, FeeBounds, IndexWindow, PsbtPayload
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.wallets import Address, Chain

HOMED_MOST: Final = 50
"""Coins that one transaction brings home from under an older certificate."""
_MISSING_INPUTS: Final = -25
_ALREADY_IN_CHAIN: Final = -27
_P2WSH: Final = 34
"""Bytes of a P2WSH output script."""


class BitcoinPayouts:
    """Payouts out of certified P2WSH wallets, through one node that watches them.

    `confirmations` is how deep a coin must be before it is spent; the registry's, where nothing else is said.
    """

    def __init__(
        self,
        rpc: BitcoinRpc,
        assets: Assets,
        fees: FeeBounds | None = None,
        window: IndexWindow | None = None,
        confirmations: int = 0,
    ) -> None:
        natives = [asset for asset in assets.on(rpc.chain) if asset.kind is AssetKind.NATIVE]
        if len(natives) != 1:
            raise InvalidInput("assets", Rule.UNKNOWN_ASSET, f"{len(natives)} native assets", f"one on {rpc.chain}")
        self._rpc, self._asset = rpc, natives[0]
        self._fees, self._window = fees or FeeBounds(), window or IndexWindow()
        self._confirmations = confirmations or assets.confirmations[rpc.chain]
        self._watched: dict[bytes, WatchedWallet] = {}

    @property
    def chain(self) -> Chain:
        """The chain whose genesis block the node has."""
        return self._rpc.chain

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """The descriptor is what the keys make, and two libraries derive the same addresses from it."""
        del wallet
        found = [*check_script(certificate)]
        differing = None if found else second.agree(certificate)
        return (*found, *([] if differing is None else [differing]))

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """Coins for these payments out of what is confirmed, free and credited, by `coins.select`; the first one is the anchor.

        Whoever knows the descriptor can pay an index that nobody watches; the node lists the coin, and a payout that spent it could
        never be booked.

        Raises Refused: insufficient_balance, transaction_too_large, fee_above_bounds, fee_above_intents_maximum.
        """
        targets, node, used = self._targets(payments), self._wallet(certificate), set(taken)
        free, rate = self._free(node, used, credited), fee_rate(self._rpc, self._fees.rate)
        found = select(free, [p.units for p in payments], _shape(certificate, targets), rate, self._most(payments))
        if isinstance(found, Refusal):
            raise Refused([found])
        self._shares(found, payments)
        outpoints = tuple(coin.outpoint for coin in found.coins)
        change = node.next_change(self._window.change, outpoints[0])
        return Reservation(Anchor(certificate.chain, wallet, outpoints[0]), outpoints, change)

    def consolidate(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited,
        bound: Consolidation,
    ) -> Reservation:
        """The same reservation with small coins behind its own, by `coins.join`, while the network asks no more than the bound.

        The anchor stays the first. Whose fee it is, the caller knows. Raises Unavailable.
        """
        rate = fee_rate(self._rpc, self._fees.rate)
        if rate * 1_000 > bound.rate:
            return reservation
        node, own = self._wallet(certificate), set(reservation.references)
        free = self._free(node, set(taken), credited)
        by_outpoint = {coin.outpoint: coin for coin in free}
        if not own <= set(by_outpoint):  # spent meanwhile: building says so
            return reservation
        chosen = tuple(by_outpoint[outpoint] for outpoint in reservation.references)
        small = [coin for coin in free if coin.outpoint not in own and coin.units <= bound.coin]
        paid, shape = sum(payment.units for payment in payments), _shape(certificate, self._targets(payments))
        joined = join(chosen, small, paid, shape, rate, self._most(payments))
        return replace(reservation, references=(*reservation.references, *(coin.outpoint for coin in joined)))

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """Exactly the reserved coins, at the fee rate of now; what is left goes back to the reserved change address.

        Raises Refused: reserved_coin_cannot_be_spent, and as `next_anchor`. There is nothing to sweep: deposit addresses are
        the wallet's own.
        """
        if sweeps or reservation.references[:1] != (reservation.anchor.reference,):
            raise InvalidInput(
                "reservation", Rule.MALFORMED, str(reservation.references[:1]), "the anchor first; no sweeps"
            )
        targets, rate = self._targets(payments), fee_rate(self._rpc, self._fees.rate)
        coins = [self._wallet(certificate).coin(outpoint, self._confirmations) for outpoint in reservation.references]
        paid = sum(payment.units for payment in payments)
        settled = settle(tuple(coin for coin, _ in coins), paid, _shape(certificate, targets), rate)
        if isinstance(settled, Refusal):
            raise Refused([settled])
        shares = self._shares(settled, payments)
        if settled.change:
            at = reservation.change
            script = script_pubkey(change_address(certificate, at))
            targets.append(Target(settled.change, script, certificate, CHANGE, at))
        told = tuple(
            Paid(p.intent, p.asset, p.units, p.destination.text, share)
            for p, share in zip(payments, shares, strict=True)
        )
        return self._unsigned(certificate, reservation.anchor, coins, targets, told, settled)

    def home(
        self,
        wallet: bytes,
        older: WalletCertificate,
        newest: WalletCertificate,
        taken: Collection[str],
        credited: Credited,
        most: int,
    ) -> UnsignedPayout | None:
        """Credited coins under an older certificate as one output under the newest, at its next change address.

        The largest first, as many as `HOMED_MOST`; none that costs more than it holds. `most` is what the fee may be at the most,
        beside the bounds of law. None where nothing is there to move; raises Refused(fee_above_bounds) where only the fee hinders it.
        """
        rate = fee_rate(self._rpc, self._fees.rate)
        shape = Shape(older.m, older.n, (_P2WSH,))
        cost = -(-shape.input_weight * rate // 4)
        free = self._free(self._wallet(older), set(taken), credited)
        worth = sorted((c for c in free if c.units > 2 * cost), key=lambda c: (-c.units, c.outpoint))[:HOMED_MOST]
        if not worth:
            return None
        size = shape.vbytes(len(worth), change=False)
        total, fee = sum(coin.units for coin in worth), size * rate
        bound = min(self._fees.most(total, size), most)
        if total - fee < CHANGE_LEAST:
            return None
        if fee > bound:
            raise Refused([Refusal(Rule.FEE_TOO_HIGH, fee=fee, most=bound, vbytes=size)])
        anchor = Anchor(older.chain, wallet, worth[0].outpoint)
        at = self._wallet(newest).next_change(self._window.change, anchor.reference)
        target = Target(total - fee, script_pubkey(change_address(newest, at)), newest, CHANGE, at)
        coins = [self._wallet(older).coin(coin.outpoint, self._confirmations) for coin in worth]
        spent = tuple(coin for coin, _ in coins)
        return self._unsigned(older, anchor, coins, [target], (), Selection(spent, 0, fee, size))

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """The anchor alone, to the wallet's one change address for voids.

        Not to the script that holds it: that may be a customer's, who would be credited the same coin again.
        The fee is above `outbid` by what a node wants for relaying a replacement (BIP-125, rule 4), within the bounds.
        """
        coin, raw = self._wallet(certificate).coin(anchor.reference, self._confirmations)
        shape = Shape(certificate.m, certificate.n, (_P2WSH,))
        size, rate = shape.vbytes(1, change=False), fee_rate(self._rpc, self._fees.rate)
        fee = outbid + rate * size
        most = self._fees.most(coin.units, size)
        if fee > most:
            raise Refused([Refusal(Rule.FEE_TOO_HIGH, fee=fee, most=most, paid=coin.units, vbytes=size)])
        script = script_pubkey(change_address(certificate, VOID_CHANGE))
        back = Target(coin.units - fee, script, certificate, CHANGE, VOID_CHANGE)
        return self._unsigned(certificate, anchor, [(coin, raw)], [back], (), Selection((coin,), 0, fee, size))

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """The signed transaction, which bitcoinlib read and verified too (law 4). Raises Refused with everything wrong."""
        psbt = self._psbt(unsigned)
        raw = psbts.finalize(certificate, psbt, signatures)
        raise_if(self._second_opinion(raw, psbt, unsigned))
        return SignedPayout(unsigned.id, unsigned.anchor, raw, psbts.vbytes(raw))

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """The signed transaction is what goes out; nothing is put around it."""
        del certificate
        return Envelope(signed.id, signed.id, signed.anchor, signed.raw)

    def broadcast(self, envelope: Envelope) -> None:
        """Send the transaction; one that the mempool or a block already has counts as sent.

        Raises Refused(anchor_already_consumed) where a block spends the anchor: by which variant, `follow` finds out.
        """
        found = second.decode_transaction(envelope.raw, self.chain).txid
        if found != envelope.transaction:
            raise InvalidInput("envelope.raw", Rule.MALFORMED, found.hex(), envelope.transaction.hex())
        try:
            self._rpc.call("sendrawtransaction", envelope.raw.hex())
        except RpcError as error:
            if error.code == _ALREADY_IN_CHAIN:
                return
            if error.code == _MISSING_INPUTS and unspent(self._rpc, *read_outpoint(envelope.anchor.reference)) is None:
                raise Refused([Refusal(Rule.ANCHOR_SPENT, anchor=envelope.anchor.reference)]) from error
            raise

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """By the wallet's own record of each variant, and by whether a block spends the anchor."""
        del since
        anchors = {envelope.anchor for envelope in envelopes}
        if len(anchors) != 1:
            raise InvalidInput("envelopes", Rule.MALFORMED, f"{len(anchors)} anchors", "envelopes of one payout")
        node = self._wallet(certificate)
        spent = node.consumed(anchors.pop().reference)
        settled = worst([node.fate(envelope) for envelope in envelopes])
        if isinstance(settled, Mined | Replaced) or not spent:
            return settled or Unknown()
        return Replaced(b"")

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """The same payout for the fee rate of now, out of its change; all that people approved where the node wants more.

        Change stays, since a variant has the same outputs: seats bound the anchor to them.
        """
        size, wanted = sent.size, fee_rate(self._rpc, self._fees.rate) * sent.size
        if wanted <= sent.fee:
            return None
        psbt, script = self._psbt(sent), script_pubkey(change_address(certificate, reservation.change))
        held = [units for units, paid in psbts.paid_scripts(psbt) if paid == script]
        allowed = [maxima[paid.intent] for paid in sent.paid]
        bound = self._fees.most(sum(paid.units for paid in sent.paid), size)
        room = sent.fee + max(0, sum(held) - CHANGE_LEAST)
        least = sent.fee + replacing_rate(self._rpc) * size
        told = {"fee": max(wanted, least), "paid": sent.fee, "vbytes": size}
        for rule, most in (
            (Rule.MAXIMUM_FEE, sum(allowed)),
            (Rule.FEE_TOO_HIGH, bound),
            (Rule.INSUFFICIENT_BALANCE, room),
        ):
            if most < least:
                raise Refused([Refusal(rule, most=most, **told)])
        fee = min(max(wanted, least), sum(allowed), bound, room)
        shares = split_fee(fee, allowed)
        if isinstance(shares, Refusal):
            raise Refused([shares])
        raised = psbts.with_change(psbt, script, sum(held) - (fee - sent.fee))
        shared = tuple(replace(paid, fee=share) for paid, share in zip(sent.paid, shares, strict=True))
        payload = PsbtPayload(self.chain.name, raised)
        return replace(sent, id=psbts.txid(raised), payload=payload, paid=shared, fee=fee)

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """Nothing is put around a payout."""
        del certificate, signed, last
        return None

    def _wallet(self, certificate: WalletCertificate) -> WatchedWallet:
        if certificate.chain != self.chain.name:
            raise InvalidInput("certificate", Rule.WRONG_NETWORK, certificate.chain, str(self.chain))
        known = self._watched.get(certificate.struct_hash)
        if known is None:
            known = self._watched[certificate.struct_hash] = WatchedWallet(self._rpc, certificate)
        return known

    def _is_ours(self, coin: Coin) -> bool:
        """Not at a change index that nobody else watches: whoever knows the descriptor could pay one there to wedge the books."""
        return coin.branch != CHANGE or coin.index <= self._window.change

    def _targets(self, payments: Sequence[Payment]) -> list[Target]:
        if not payments:
            raise InvalidInput("payments", Rule.MALFORMED, "none", "at least one")
        return [self._target(payment) for payment in payments]

    def _target(self, payment: Payment) -> Target:
        if payment.asset != self._asset.symbol or payment.destination.chain != self.chain:
            got = f"{payment.asset} on {payment.destination.chain}"
            raise InvalidInput("payment", Rule.WRONG_NETWORK, got, f"{self._asset} on {self.chain}")
        if payment.units < self._asset.dust:
            raise InvalidInput("units", Rule.DUST, str(payment.units), f"at least {self._asset.dust}")
        script, derived = script_pubkey(payment.destination), payment.derived
        if derived is None:
            return Target(payment.units, script)
        index = derived.index
        if index is None or derive_address(derived.certificate, derived.branch, index) != payment.destination:
            raise InvalidInput(
                "derived", Rule.ADDRESS_MISMATCH, payment.destination.text, "what the certificate derives"
            )
        return Target(payment.units, script, derived.certificate, derived.branch, index)

    def _free(self, node: WatchedWallet, used: Collection[str], credited: Credited) -> list[Coin]:
        """Coins that are deep enough, at an index that watchers see, pinned by nobody, and in the books."""
        free = [coin for coin in node.coins(self._confirmations) if self._is_ours(coin) and coin.outpoint not in used]
        known = credited([coin.outpoint for coin in free])
        return [coin for coin in free if coin.outpoint in known]

    def _most(self, payments: Sequence[Payment]) -> Callable[[int], int]:
        """What a transaction of so many virtual bytes may cost: the bounds of law and node, and what people approved."""
        paid, approved = sum(p.units for p in payments), sum(p.maximum_fee for p in payments)
        return lambda vbytes: min(self._fees.most(paid, vbytes), approved)

    def _shares(self, settled: Selection, payments: Sequence[Payment]) -> tuple[int, ...]:
        most = self._fees.most(sum(payment.units for payment in payments), settled.vbytes)
        if settled.fee > most:
            raise Refused([Refusal(Rule.FEE_TOO_HIGH, fee=settled.fee, most=most, vbytes=settled.vbytes)])
        shares = split_fee(settled.fee, [payment.maximum_fee for payment in payments])
        if isinstance(shares, Refusal):
            raise Refused([shares])
        return shares

    def _unsigned(
        self,
        certificate: WalletCertificate,
        anchor: Anchor,
        coins: Sequence[tuple[Coin, bytes]],
        targets: Sequence[Target],
        told: tuple[Paid, ...],
        settled: Selection,
    ) -> UnsignedPayout:
        psbt = psbts.write(certificate, coins, targets)
        payload = PsbtPayload(self.chain.name, psbt)
        return UnsignedPayout(
            psbts.txid(psbt), anchor, certificate.struct_hash, payload, told, settled.fee, settled.vbytes
        )

    def _psbt(self, unsigned: UnsignedPayout) -> bytes:
        payload = unsigned.payload
        if not isinstance(payload, PsbtPayload) or payload.chain != self.chain.name:
            raise InvalidInput("payout.payload", Rule.MALFORMED, type(payload).__name__, f"a PSBT on {self.chain}")
        return payload.psbt

    def _second_opinion(self, raw: bytes, psbt: bytes, unsigned: UnsignedPayout) -> list[Refusal]:
        """Whether bitcoinlib, which shares no code with the builder, reads the very transaction that was meant."""
        spent = {point: second.SpentOutput(*output) for point, output in psbts.spent(psbt).items()}
        try:
            read = second.verify_transaction(raw, self.chain, spent)
        except InvalidInput as error:
            return [Refusal(Rule.SECOND_DECODER, field=error.field, why=error.rule, got=error.got, want=error.want)]
        outputs = [(output.value, output.script) for output in read.outputs]
        owed = Counter((p.units, script_pubkey(Address(self.chain, p.destination))) for p in unsigned.paid)
        fee = sum(output.value for output in spent.values()) - sum(value for value, _ in outputs)
        told: dict[str, tuple[object, object]] = {
            "txid": (read.txid.hex(), unsigned.id.hex()),
            "version and lock time": ((read.version, read.locktime), (2, 0)),
            "anchor": (f"{read.inputs[0].txid.hex()}:{read.inputs[0].vout}", unsigned.anchor.reference),
            "inputs": ([(i.txid, i.vout) for i in read.inputs], list(spent)),
            "sequences": ({i.sequence for i in read.inputs}, {REPLACEABLE}),
            "outputs": (outputs, psbts.paid_scripts(psbt)),
            "payments": (owed - Counter(outputs), Counter[tuple[int, bytes]]()),
            "fee": (fee, unsigned.fee),
        }
        return [
            Refusal(Rule.SECOND_DECODER, field=field, got=str(got), want=str(want))
            for field, (got, want) in told.items()
            if got != want
        ]


def _shape(certificate: WalletCertificate, targets: Sequence[Target]) -> Shape:
    return Shape(certificate.m, certificate.n, tuple(len(target.script) for target in targets))
