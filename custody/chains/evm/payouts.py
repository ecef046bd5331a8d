# SPDX-License-Identifier: AGPL-3.0-or-later
"""`PayoutChain` for EVM: one SafeTx for each payout, simulated before anybody is asked, carried by the relayer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient, NodeRefused
from custody.chains.evm.following import follow_safe, known, safe_nonce
from custody.chains.evm.leaves import (
    execute_data,
    hash_question,
    library_hash,
    payment_call,
    safe_tx,
    sweep_call,
)
from custody.chains.evm.owners import owner_calls
from custody.chains.evm.relay import RelaySigner, deploy_deposits, outbid, relay_call
from custody.chains.evm.safe_states import read_safe
from custody.chains.evm.safes import deposit_safe
from custody.chains.evm.scan import balances
from custody.chains.evm.signatures import check_packed, pack
from custody.chains.evm.simulation import estimate, simulate
from custody.rules.amounts import Assets
from custody.rules.attested import check_safe_state
from custody.rules.certificates import SafeParameters, WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Anchor
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Paid,
    Payment,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    UnsignedPayout,
    none_credited,
)
from custody.rules.payouts import SafeTx, void_safe_tx
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Address, Chain

VOID_GAS: Final = 150_000
"""A Safe that calls itself with nothing, M signatures and SafeL2's log; seen 84 k for 3-of-4."""
_EXECUTE: Final = (
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes",
)  # fmt: skip


class EvmPayouts:
    """Payouts out of certified Safes of one chain, through one node and the relayer's own seat."""

    def __init__(self, client: EvmClient, assets: Assets, relayer: RelaySigner) -> None:
        self._client, self._assets, self._relayer = client, assets, relayer
        self._deploying: dict[str, bytes] = {}

    @property
    def chain(self) -> Chain:
        """The chain that the node was confirmed to be on."""
        return self._client.chain

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """Owners, threshold, singleton, handler, guard and modules as certified, read back at the head."""
        head = self._client.header("latest")
        if head is None:
            raise Unavailable(f"head of {self.chain}", "the node has none")
        state = read_safe(self._client, wallet, certificate, head.hash)
        if not state.deployed:
            return (Refusal(Rule.SAFE_DRIFT, wallet=wallet.hex(), field="deployed", got="False", want="True"),)
        return tuple(check_safe_state(state, certificate))

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """The lowest nonce from the Safe's own on that no unfinished permit has; payments do not matter to it."""
        del payments, credited
        nonce = safe_nonce(self._client, self._safe(certificate).address)
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
        """Sweeps first, then payments, as one SafeTx at the reserved nonce.

        Raises Refused(simulation_of_a_leaf_fails) naming the leaf: leave it out or pay it alone, and build again.
        """
        safe = self._safe(certificate)
        calls = [sweep_call(sweep, certificate, self._assets) for sweep in sweeps]
        calls += [payment_call(payment, self._assets, self.chain) for payment in payments]
        tx = safe_tx(certificate, _nonce(reservation.anchor), calls)
        digest = self._agreed_hash(tx)
        failing = simulate(self._client, safe, calls)
        raise_if([] if failing is None else [failing])
        paid = tuple(Paid(p.intent, p.asset, p.units, p.destination.text, 0) for p in payments)
        size = estimate(self._client, safe, calls)
        return UnsignedPayout(digest, reservation.anchor, certificate.struct_hash, tx, paid, 0, size)

    def rotation(self, old: WalletCertificate, new: WalletCertificate, reservation: Reservation) -> UnsignedPayout:
        """The owner calls that turn old into new, alone in one SafeTx at the reserved nonce, under the old certificate's keys.

        Raises Refused: safe_differs_from_certificate, does_not_turn_old_into_new, simulation_of_a_leaf_fails.
        """
        safe, head = self._safe(old), self._client.header("latest")
        if head is None:
            raise Unavailable(f"head of {self.chain}", "the node has none")
        state = read_safe(self._client, reservation.anchor.wallet, old, head.hash)
        calls = owner_calls(old, new, state.owners, state.threshold)
        tx = safe_tx(old, _nonce(reservation.anchor), calls)
        digest = self._agreed_hash(tx)
        failing = simulate(self._client, safe, calls)
        raise_if([] if failing is None else [failing])
        size = estimate(self._client, safe, calls)
        return UnsignedPayout(digest, reservation.anchor, old.struct_hash, tx, (), 0, size)

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """The Safe calls itself with nothing at that nonce. `outbid` means nothing here: the nonce decides, not a fee."""
        del outbid
        tx = void_safe_tx(certificate.chain, self._safe(certificate).address, _nonce(anchor))
        return UnsignedPayout(self._agreed_hash(tx), anchor, certificate.struct_hash, tx, (), 0, VOID_GAS)

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """The call of `execTransaction` with M owners' signatures, ascending. Raises Refused with everything that is wrong."""
        tx = unsigned.payload
        if not isinstance(tx, SafeTx):
            raise InvalidInput("payout.payload", Rule.MALFORMED, type(tx).__name__, "a SafeTx")
        digest = library_hash(tx)
        if digest != unsigned.id or tx.safe != self._safe(certificate).address:
            raise Refused(
                [Refusal(Rule.PAYLOAD_MISMATCH, what="SafeTx hash", got=digest.hex(), want=unsigned.id.hex())]
            )
        raw = execute_data(tx.to, tx.value, tx.data, tx.operation, pack(certificate, digest, signatures))
        return SignedPayout(digest, unsigned.anchor, raw, unsigned.size)

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """The relayer's transaction around a signed payout, by the relayer's own seat, which looks at the gas cap.

        Where payouts before it are still on their way, the gas limit is the estimate of its building. Broadcast before the
        next one is sealed: the relayer's nonce is the one that its node expects next. Raises Refused: anchor_already_consumed;
        relayer_above_cap; and what is wrong with signatures that were read back from a store.
        """
        safe, nonce = self._safe(certificate.message), _nonce(signed.anchor)
        raise_if(self._check_signed(certificate.message, signed, nonce))
        now = safe_nonce(self._client, safe.address)
        if now > nonce:
            raise Refused([Refusal(Rule.ANCHOR_SPENT, anchor=nonce, nonce=now)])
        gas = None if now == nonce else signed.size
        call = relay_call(self._client, self._relayer, safe.address, signed.raw, gas)
        raw = self._relayer.sign_call(call, certificate)
        return Envelope(signed.id, keccak(raw), signed.anchor, raw)

    def broadcast(self, envelope: Envelope) -> None:
        """Send the relayer's transaction; one that the node already has counts as sent.

        Raises Refused(relayers_nonce_used_by_another_transaction): it can never be mined, so seal again.
        """
        if keccak(envelope.raw) != envelope.transaction:
            raise InvalidInput("envelope.raw", Rule.MALFORMED, keccak(envelope.raw).hex(), envelope.transaction.hex())
        try:
            self._client.call("eth_sendRawTransaction", "0x" + envelope.raw.hex())
        except NodeRefused:
            if known(self._client, envelope.transaction):
                return
            raise_if(self._check_stale(envelope))
            raise

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """The SafeTx has no fee: what is bumped is the relayer's transaction around it."""
        del certificate, reservation, sent, maxima
        return None

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """The relayer's same nonce for a higher price, within its cap; only one of the two can ever be mined."""
        safe, nonce = self._safe(certificate.message), _nonce(signed.anchor)
        raise_if(self._check_signed(certificate.message, signed, nonce))
        now = safe_nonce(self._client, safe.address)
        if now > nonce:
            raise Refused([Refusal(Rule.ANCHOR_SPENT, anchor=nonce, nonce=now)])
        raise_if(self._check_stale(last))
        raw = outbid(self._client, self._relayer, certificate, last.raw, safe.address, signed.raw)
        return None if raw is None else Envelope(signed.id, keccak(raw), signed.anchor, raw)

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """By ExecutionSuccess and ExecutionFailure of the Safe, and by its nonce."""
        anchors = {envelope.anchor for envelope in envelopes}
        if len(anchors) != 1:
            raise InvalidInput("envelopes", Rule.MALFORMED, f"{len(anchors)} anchors", "envelopes of one payout")
        nonce, safe = _nonce(anchors.pop()), self._safe(certificate)
        return follow_safe(self._client, safe.address, nonce, envelopes, max(since, certificate.birth))

    def contracts(self, addresses: Collection[Address]) -> frozenset[Address]:
        """Those of them where code stands at the head; the code of a delegation counts, since it runs when it is paid (EIP-7702)."""
        asked = sorted(addresses, key=lambda address: address.text)
        codes = self._client.batch([("eth_getCode", (address.text, "latest")) for address in asked]) if asked else ()
        return frozenset(at for at, code in zip(asked, codes, strict=True) if wire.data(code, f"code of {at}"))

    def sweepable(self, certificate: WalletCertificate, indices: Sequence[int]) -> tuple[Sweep, ...]:
        """What deposit Safes of these indices hold of each registered asset at the finalized block, in registry order."""
        final = self._client.header("finalized")
        if final is None:
            raise Unavailable(f"finalized block of {self.chain}", "the node has none")
        addresses = [deposit_safe(certificate, index).text for index in indices]
        found: list[Sweep] = []
        for asset in self._assets.on(self.chain):
            held = balances(self._client, asset, addresses, final.hash)
            found += [
                Sweep(i, asset.symbol, units) for i, units in zip(indices, held, strict=True) if units >= asset.dust
            ]
        return tuple(found)

    def deploy_deposits(self, certificate: Signed[WalletCertificate], indices: Sequence[int]) -> None:
        """Deploy the deposit Safes that a sweep needs, by the relayer and outside the batch; safe to repeat."""
        deploy_deposits(self._client, self._relayer, certificate, indices, self._deploying)

    def _safe(self, certificate: WalletCertificate) -> SafeParameters:
        if len(certificate.safe) != 1 or certificate.chain != self.chain.name:
            raise InvalidInput("certificate", Rule.WRONG_NETWORK, certificate.chain, f"one Safe on {self.chain}")
        return certificate.safe[0]

    def _agreed_hash(self, tx: SafeTx) -> bytes:
        """The SafeTx hash by safe-eth-py and by the contract itself; two answers mean that nobody is asked to sign."""
        library = library_hash(tx)
        asked = {"to": tx.safe, "data": "0x" + hash_question(tx).hex()}
        contract = wire.data(self._client.call("eth_call", asked, "latest"), f"getTransactionHash of {tx.safe}", 32)
        if contract != library:
            raise Refused([Refusal(Rule.PAYLOAD_MISMATCH, what="SafeTx hash", got=library.hex(), want=contract.hex())])
        return library

    def _check_signed(self, certificate: WalletCertificate, signed: SignedPayout, nonce: int) -> list[Refusal]:
        """Stored bytes are the database's, so the attacker's: they are read again before the relayer pays for them."""
        try:
            to, value, data, operation, *idle, signatures = decode(_EXECUTE, signed.raw[4:])
        except (DecodingError, OverflowError) as error:
            raise InvalidInput("payout.raw", Rule.MALFORMED, f"{len(signed.raw)} bytes", "execTransaction") from error
        if signed.raw != execute_data(to, value, data, operation, signatures):
            return [Refusal(Rule.NOT_CANONICAL, of="execTransaction", idle=[str(field) for field in idle])]
        void = void_safe_tx(certificate.chain, certificate.safe[0].address, nonce)
        tx = SafeTx(
            chain=void.chain,
            safe=void.safe,
            to=str(to_checksum_address(to)),
            value=value,
            data=data,
            operation=operation,
            safe_tx_gas=0,
            base_gas=0,
            gas_price=0,
            gas_token=ZERO_ADDRESS,
            refund_receiver=ZERO_ADDRESS,
            nonce=nonce,
        )
        return list(check_packed(certificate, library_hash(tx), signatures))

    def _check_stale(self, envelope: Envelope) -> list[Refusal]:
        """Whether the relayer's nonce was used by another transaction that is in a block."""
        sender = Account.recover_transaction(HexBytes(envelope.raw))
        used = TypedTransaction.from_bytes(HexBytes(envelope.raw)).as_dict()["nonce"]
        mined = wire.quantity(self._client.call("eth_getTransactionCount", sender, "latest"), "nonce")
        nonce = int.from_bytes(used) if isinstance(used, bytes) else int(str(used))
        return [Refusal(Rule.ENVELOPE_STALE, nonce=nonce, relayer=mined)] if mined > nonce else []


def _nonce(anchor: Anchor) -> int:
    if not anchor.reference.isascii() or not anchor.reference.isdecimal():
        raise InvalidInput("anchor.reference", Rule.MALFORMED, repr(anchor.reference), "a nonce in decimal")
    return int(anchor.reference)
