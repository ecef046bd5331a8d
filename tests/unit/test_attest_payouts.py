# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor speaks for a payout only as far as its own books, nodes and memory go, and never for one intent on two anchors."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from custody.attestor import RemoteAttestor, attestor_handlers
from custody.flows.attestation import Attestor
from custody.flows.bookkeeping import record_settlement
from custody.flows.mirror import put_signed
from custody.flows.ports import Branch, UnitOfWork
from custody.flows.prices import record_price, slot_kind
from custody.rules import holds
from custody.rules import seat_checks_statement as seat
from custody.rules.attested import verify_signature
from custody.rules.certificates import Enrolment
from custody.rules.coverage import Outflow, check, surplus
from custody.rules.deposits import BlockRef
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.in_flight import DAY, HOUR, Move, Moves
from custody.rules.intents import Anchor, Proposal, Rejection, TransferIntent
from custody.rules.ledger import JournalEntry, JournalHead
from custody.rules.origins import BitcoinProof, Executed, Hold, Release
from custody.rules.payments import Reservation
from custody.rules.prices import PRICE_OLDEST, Price
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import FeeLeg
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, IntentFacts, Statement
from custody.rules.transfers import Permit, Transfer, uuid7
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Address, Chain, Tier
from custody.wire import Stop, serve
from tests.fakes import ledger
from tests.fakes.chain import FakeChain
from tests.fakes.house import CONFIRMATIONS, DERIVE, House, SafeChain, address_of, certificate, deployment, roster
from tests.fakes.ledger import ASSETS, BTC, COIN, ETH, EVM, STRANGER_ETH, USD
from tests.fakes.seat import NOW, Clock, ed25519, rules_of, secp256k1, signed_by

E18 = 10**18
OTHER_STRANGER = "0x" + "77" * 20
BITCOIN_STRANGER = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"


class CoinChain(FakeChain):
    """A `FakeChain` whose outputs can be spent one by one, and that knows payouts."""

    def is_spent(self, outpoint: str, addresses: Sequence[Address], at: BlockRef) -> bool | None:
        """See `OutpointReader`."""
        self._answer()
        created = {
            f"{s.proof.txid.hex()}:{s.proof.vout}": (s.address, s.proof.height)
            for block in self._blocks
            for s in block.arrivals
            if isinstance(s.proof, BitcoinProof)
        }
        address, height = created.get(outpoint, (None, 0))
        if address not in addresses or height > at.height:
            return None
        spent: dict[str, int] = getattr(self, "spent", {})
        return outpoint in spent and spent[outpoint] <= at.height

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """See `PayoutReader`: every payout is what it says."""
        return None


class PayingChain(SafeChain):
    """The same for Safes: `nonces` by height, from which each holds."""

    nonces: dict[int, int]

    def safe_state(self, wallet: bytes, certificate: Any, at: BlockRef) -> Any:
        """See `SafeReader`."""
        reached = [nonce for height, nonce in getattr(self, "nonces", {}).items() if height <= at.height]
        return replace(super().safe_state(wallet, certificate, at), nonce=max(reached, default=0))

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """See `PayoutReader`."""
        return None


def _insert(signed: Signed[Price], work: UnitOfWork) -> None:
    put_signed(work.documents, slot_kind(signed.message.time), signed)


@dataclass
class Desk:
    """A house with coins and prices, and everything that people and programs sign in it."""

    house: House = field(
        default_factory=lambda: House(
            evm=PayingChain(EVM, CONFIRMATIONS, start=NOW), btc=CoinChain(BTC, CONFIRMATIONS, start=NOW)
        )
    )
    number: int = 0

    def __post_init__(self) -> None:
        house = self.house
        house.evm.mine((ETH, address_of("ana", EVM, 0), 10 * E18), (USD, address_of("bo", EVM, 1), 900_000_000))
        house.evm.mine((ETH, address_of("bo", EVM, 1), E18))
        house.evm.mine((ETH, Address(EVM, house.wallet(Tier.OPERATIONAL, EVM).place), 5 * E18))
        house.evm.mine_many(3)
        house.btc.mine((COIN, address_of("ana", BTC, 0), 900_000))
        house.btc.mine_many(3)
        house.settle(house.evm)
        house.settle(house.btc)
        self.quote()

    def quote(self, feeders: Sequence[str] = ("feed-1", "feed-2"), by: str = "") -> None:
        """Prices now: 3000 USD an ETH, 60,000 a BTC, one a USD."""
        for asset, usd in (("ETH", 3000), ("BTC", 60_000), ("USD", 1)):
            for feeder in feeders:
                price = Price(feeder, asset, usd * 10**6, self.house.clock())
                signed = signed_by(price, deployment().domain, [ed25519(by or feeder)])
                if by:
                    self.run(partial(_insert, signed))
                else:
                    record_price(self.house.store, roster(), signed, self.house.clock())

    def run(self, work: Callable[[UnitOfWork], Any]) -> Any:
        """Write, as the worker or whoever has the database."""
        return self.house.store.run(work)

    def enrol(
        self, address: str = STRANGER_ETH.text, chain: Chain = EVM, owner: str = "customer:ana", by: str = "cy"
    ) -> bytes:
        """An enrolment in the mirror, whose row says it is a year old."""
        message = Enrolment(chain.name, address, owner, "customer_withdrawal", ZERO32, NOW + 10**8)
        signed = signed_by(message, deployment().domain, [secp256k1(by)])
        self.run(lambda work: work.enrolments.add(signed, NOW - 31_536_000))
        return message.struct_hash

    def intent(self, **changes: Any) -> tuple[Signed[Proposal], TransferIntent]:
        """A proposal of the backend and its intent: ana withdraws 1 ETH, with these fields changed."""
        self.number += 1
        chain = Chain(changes.get("chain", EVM.name))
        tier = changes.pop("tier", Tier.CUSTOMER_HOT)
        paying = certificate(tier, chain)
        said: dict[str, Any] = {
            "account": "customer:ana",
            "chain": chain.name,
            "asset": "ETH" if chain.is_evm else "BTC",
            "amount": E18,
            "destination": STRANGER_ETH.text if chain.is_evm else BITCOIN_STRANGER,
            "purpose": "withdrawal",
            "expiry": NOW + 30 * DAY,
        }
        said |= {name: value for name, value in changes.items() if name in said}
        proposal = Proposal(reference=f"r{self.number}", **said)
        asset = ASSETS.get(said["asset"])
        rest: dict[str, Any] = {
            "id": uuid7(NOW * 1000, self.number.to_bytes(10)),
            "proposal": proposal.struct_hash,
            "wallet": paying.wallet,
            "certificate": paying.struct_hash,
            "token": asset.contract.text if asset.contract else ZERO_ADDRESS,
            "decimals": asset.decimals,
            "destination_kind": "customer_withdrawal",
            "enrolment": ZERO32,
            "maximum_fee": 0 if chain.is_evm else 5_000,
            "initiator": "backend",
            "policy": ledger.SCHEDULE.bundle,
            "roster": 1,
            "not_before": NOW,
        }
        rest |= {name: value for name, value in changes.items() if name in rest}
        return signed_by(proposal, deployment().domain, [ed25519("backend")]), TransferIntent(**(said | rest))

    def hold(self, at: int | None = None, **changes: Any) -> bytes:
        """A held transfer; its digest."""
        signed, intent = self.intent(**changes)
        entry = holds.hold(Hold(signed.message, signed.signatures, intent), ASSETS)
        assert entry is not None
        self.run(lambda work: work.journal.append(entry, self.house.clock() if at is None else at))
        return deployment().domain.digest(intent)

    def coin(self, address: Address, *, booked: bool = True) -> str:
        """A final coin of 80,000 satoshi; `booked` lets the watcher credit it, and everything that came before it."""
        self.house.btc.mine((COIN, address, 80_000))
        proof = self.house.btc._blocks[-1].arrivals[0].proof
        assert isinstance(proof, BitcoinProof)
        self.house.btc.mine_many(2)
        if booked:
            self.house.settle(self.house.btc)
        return f"{proof.txid.hex()}:{proof.vout}"

    def permitted(self, *coins: str) -> tuple[Anchor, bytes]:
        """A held withdrawal of BTC with a permit that pins these coins: its anchor and digest."""
        signed, intent = self.intent(chain=BTC.name, amount=100_000)
        digest, anchor = deployment().domain.digest(intent), Anchor(BTC.name, intent.wallet, coins[0])
        entry = holds.hold(Hold(signed.message, signed.signatures, intent), ASSETS)
        assert entry is not None
        permit = Permit(Reservation(anchor, coins, 0), (digest,), 1, NOW)

        def record(work: UnitOfWork) -> None:
            position = work.journal.append(entry, NOW).position
            work.transfers.add(Transfer(digest, signed, intent, 1, NOW, hold=position), "backend", intent.id, b"asked")
            work.transfers.permit(permit)

        self.run(record)
        return anchor, digest

    def unheld(self, signers: Sequence[str] = ("backend",), **changes: Any) -> bytes:
        """A move between customer wallets on EVM holds nothing, so it stands in a row only; here hot pays its own tier's Safe."""
        changes = {"account": "company", "purpose": "rebalance", "destination_kind": "internal_wallet"} | changes
        signed, intent = self.intent(**changes)
        signed = signed_by(signed.message, deployment().domain, [ed25519(name) for name in signers])
        digest = deployment().domain.digest(intent)
        transfer = Transfer(digest, signed, intent, usd=1, created_at=NOW)
        self.run(lambda work: work.transfers.add(transfer, "backend", intent.id, b"asked"))
        return digest

    def position(self, digest: bytes) -> int:
        """Of a hold."""
        for recorded in self.house.store.read(lambda work: work.journal.read(0, 1000)):
            origin = recorded.entry.origin
            if isinstance(origin, Hold) and deployment().domain.digest(origin.intent) == digest:
                return int(recorded.position)
        raise LookupError(digest.hex())

    def held(self, digest: bytes) -> TransferIntent:
        """The intent of a hold."""
        entry = self.house.store.read(lambda work: work.journal.get(self.position(digest))).entry
        assert isinstance(entry.origin, Hold)
        return entry.origin.intent

    def release(self, digest: bytes) -> None:
        """Ana says no, and the worker books it."""
        rejection = signed_by(Rejection(digest, "no"), deployment().domain, [secp256k1("ana")])
        origin = Release(self.position(digest), digest, (rejection.message,), rejection.signatures)
        entry = holds.release(origin, self.held(digest), ASSETS)
        assert entry is not None
        self.run(lambda work: work.journal.append(entry, self.house.clock()))

    def execute(self, anchor: Anchor, *digests: bytes, void: bool = False, at: int | None = None) -> None:
        """The worker books the end of an anchor."""
        origin = Executed(anchor.chain, 1, bytes(32), bytes(32), anchor, digests, (), 0, void)
        tier = next(w.tier for w in self.house.inventory() if w.name == anchor.wallet)
        entry = holds.pay(origin, [self.held(digest) for digest in digests], tier, ASSETS)
        assert entry is not None
        self.run(lambda work: work.journal.append(entry, self.house.clock() if at is None else at))

    def consume(self, nonce: int) -> None:
        """A block consumes the Safes' nonce; it is not final yet."""
        chain = self.house.evm
        assert isinstance(chain, PayingChain)
        chain.nonces = {**getattr(chain, "nonces", {}), chain.head().height + 1: nonce + 1}
        chain.mine()


def nonce(number: int | str, tier: Tier = Tier.CUSTOMER_HOT) -> Anchor:
    """An anchor on EVM."""
    return Anchor(EVM.name, certificate(tier, EVM).wallet, str(number))


def row(signed: Signed[Statement], symbol: str = "ETH") -> AssetCoverage:
    """One asset's line."""
    return next(row for row in signed.message.coverage if row.asset == symbol)


def facts(signed: Signed[Statement], digest: bytes) -> IntentFacts:
    """One intent's."""
    return next(facts for facts in signed.message.intents if facts.intent == digest)


def refused(attestor: Attestor, anchor: Anchor, *digests: bytes) -> set[Rule]:
    """Rules that refuse; nothing is bound by it."""
    with pytest.raises(Refused) as caught:
        attestor.attest(anchor, digests)
    return rules_of(caught.value)


class TestNamed:
    """What a statement for a payout names."""

    def test_what_a_seat_asks(self) -> None:
        """Signed, this anchor, exactly these intents, covered after what they take, and a new number each time."""
        desk = Desk()
        digests = [desk.hold(), desk.hold(account="customer:bo", asset="USD", amount=5_000_000)]
        attestor = desk.house.attestor()
        first = attestor.attest(nonce(0), digests)
        assert verify_signature(first, roster()) == []
        assert first.message.anchor == (nonce(0),)
        assert [f.intent for f in first.message.intents] == digests
        assert all(f.hold_stands and f.balance_covers for f in first.message.intents)
        outflows = [Outflow("ETH", E18, E18), Outflow("USD", 5_000_000, 5_000_000)]
        assert [*check(first.message.coverage, {"ETH", "USD"}, outflows)] == []
        assert (row(first).held, row(first).in_flight, row(first).available) == (E18, 0, 10 * E18)
        again = attestor.attest(nonce(0), digests)
        assert again.message.sequence > first.message.sequence
        assert replace(again.message, sequence=0) == replace(first.message, sequence=0)

    def test_seats_own_checks_pass(self) -> None:
        """Every check that a seat makes of a statement, on the attestor's own word and not on a test's."""
        desk = Desk()
        digests = [desk.hold(), desk.hold(account="customer:bo", asset="USD", amount=5_000_000)]
        signed = desk.house.attestor().attest(nonce(0), digests)
        wallet = certificate(Tier.CUSTOMER_HOT, EVM)
        case: Any = SimpleNamespace(
            request=SimpleNamespace(statement=signed),
            statement=signed.message,
            roster=roster(),
            time=NOW + 20,
            tier=Tier.CUSTOMER_HOT,
            decoded=SimpleNamespace(anchor=nonce(0), chain=EVM.name, native="ETH", wallet=wallet.wallet),
            items=[
                SimpleNamespace(digest=digest, facts=facts(signed, digest), intent=desk.held(digest), to_tier=None)
                for digest in digests
            ],
            certificate=wallet,
            safe=next(state for state in signed.message.safes if state.wallet == wallet.wallet),
            journal=SimpleNamespace(sequence=signed.message.sequence - 1, policies=[ledger.SCHEDULE.bundle]),
            policies=SimpleNamespace(newest=SimpleNamespace(hash=ledger.SCHEDULE.bundle)),
        )
        asked = (
            seat.check_signature, seat.check_fresh, seat.check_sequence, seat.check_versions, seat.check_anchor_named,
            seat.check_intents_named, seat.check_holds, seat.check_balances, seat.check_coverage, seat.check_reserves,
            seat.check_safe, seat.check_nonce,
        )  # fmt: skip
        assert [refusal for ask in asked for refusal in ask(case)] == []
        case.decoded.anchor = nonce(1)
        assert [refusal.rule for refusal in seat.check_anchor_named(case)] == [Rule.STATEMENT_MISMATCH]

    def test_an_anchor_alone(self) -> None:
        """A void or a rotation names its anchor and no intent, and needs no price."""
        desk = Desk()
        desk.house.clock.now += PRICE_OLDEST + 1
        signed = desk.house.attestor().attest(nonce(3), [])
        assert (signed.message.anchor, signed.message.intents) == ((nonce(3),), ())

    @pytest.mark.parametrize(
        ("anchor", "rule"),
        [
            pytest.param(nonce(16), None, id="the furthest nonce"),
            pytest.param(nonce(17), Rule.COIN_GONE, id="beyond what batches on their way need"),
            pytest.param(nonce(900), Rule.COIN_GONE, id="held back, signed, until every nonce before it is used"),
            pytest.param(nonce("00"), Rule.COIN_GONE, id="another spelling"),
            pytest.param(nonce("-1"), Rule.COIN_GONE, id="no number"),
            pytest.param(Anchor(EVM.name, bytes(32), "0"), Rule.COIN_GONE, id="no wallet"),
            pytest.param(replace(nonce(0), chain=BTC.name), Rule.COIN_GONE, id="another chain"),
        ],
    )
    def test_anchor_has_to_exist(self, anchor: Anchor, rule: Rule | None) -> None:
        """An intent bound to what cannot be consumed could be neither paid nor voided."""
        desk = Desk()
        digest = desk.hold()
        if rule is None:
            desk.house.attestor().attest(anchor, [digest])
        else:
            assert rule in refused(desk.house.attestor(), anchor, digest)
            desk.house.attestor().attest(nonce(0), [digest])  # nothing was bound

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            pytest.param(
                {"wallet": certificate(Tier.OPERATIONAL, EVM).wallet}, Rule.WRONG_WALLET, id="of another wallet"
            ),
            pytest.param({"expiry": NOW + 10}, Rule.EXPIRED, id="expired"),
        ],
    )
    def test_intent_fits(self, changes: dict[str, Any], rule: Rule) -> None:
        """An intent of this wallet that still lives."""
        desk = Desk()
        digest = desk.hold(**changes)
        desk.house.clock.now += 10
        assert refused(desk.house.attestor(), nonce(0), digest) == {rule}

    def test_twice_in_one_payout(self) -> None:
        """An intent is paid once."""
        desk = Desk()
        digest = desk.hold()
        assert Rule.MALFORMED in refused(desk.house.attestor(), nonce(0), digest, digest)

    def test_over_the_wire(self, tmp_path: Path) -> None:
        """The socket's verb says and refuses the same."""
        desk, stop, ready = Desk(), Stop(), threading.Event()
        digest, path = desk.hold(), tmp_path / "run" / "attestor.sock"
        handlers = attestor_handlers(desk.house.attestor())
        thread = threading.Thread(target=serve, args=(path, handlers, ready.set, stop))
        thread.start()
        try:
            assert ready.wait(60)
            remote = RemoteAttestor(path)
            signed = remote.attest(nonce(0), [digest])
            assert verify_signature(signed, roster()) == []
            assert [f.intent for f in signed.message.intents] == [digest]
            with pytest.raises(Refused) as caught:
                remote.attest(nonce(1), [digest])
            assert rules_of(caught.value) == {Rule.INTENT_BOUND}
        finally:
            stop.ring()
            thread.join(10)
        for odd in ("digest", [digest.hex()], [5]):
            with pytest.raises(InvalidInput):
                handlers["attest"]({"anchor": nonce(0).to_json(), "intents": odd})


class TestOneAnchor:
    """An intent is attested on one anchor, for ever."""

    @pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
    def test_second_anchor(self, restart: bool) -> None:
        """A request to please sign again, on another nonce, pays twice."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        if restart:
            attestor = desk.house.attestor()
        assert refused(attestor, nonce(1), digest) == {Rule.INTENT_BOUND}
        attestor.attest(nonce(0), [digest])

    def test_a_batch_is_bound_whole_or_not(self) -> None:
        """One intent that is bound elsewhere leaves the others free."""
        desk = Desk()
        bound, free = desk.hold(), desk.hold()
        attestor = desk.house.attestor()
        attestor.attest(nonce(0), [bound])
        assert refused(attestor, nonce(1), free, bound) == {Rule.INTENT_BOUND}
        attestor.attest(nonce(2), [free])

    def test_bound_to_a_dead_anchor(self) -> None:
        """After a void the intent is burned: neither this anchor nor another."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        desk.consume(0)
        desk.house.evm.mine_many(3)
        assert refused(attestor, nonce(0), digest) == {Rule.ANCHOR_SPENT}
        assert refused(attestor, nonce(1), digest) == {Rule.INTENT_BOUND}

    @pytest.mark.parametrize("written", [1, 2], ids=["only listed", "bound"])
    @pytest.mark.parametrize("death", ["die_before", "die_after"])
    def test_dies_between_memory_and_signature(self, death: str, written: int) -> None:
        """Cut off anywhere nothing was signed; once it was bound, it is bound for every process after this one."""
        desk = Desk()
        digest = desk.hold()
        desk.house.attestor().statement()  # everything seen, head extended
        setattr(desk.house.vault, death, desk.house.vault.writes + 1 + written)  # the sequence comes first
        with pytest.raises(Unavailable):
            desk.house.attestor().attest(nonce(0), [digest])
        survivor = desk.house.attestor()
        bound = (death, written) == ("die_after", 2)
        eth = row(survivor.statement())
        assert (eth.in_flight, eth.held) == ((E18, 0) if bound else (0, E18))
        if bound:
            assert refused(survivor, nonce(1), digest) == {Rule.INTENT_BOUND}
            survivor.attest(nonce(0), [digest])
        else:
            survivor.attest(nonce(1), [digest])


class TestInFlight:
    """From the first signature that could exist until the final end of the anchor."""

    def test_counted_until_final(self) -> None:
        """Neither mined nor a restart ends it: a final block does."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        desk.hold(amount=3 * E18)
        assert (row(attestor.statement()).held, row(attestor.statement()).in_flight) == (4 * E18, 0)
        before = surplus(row(attestor.statement()))
        attestor.attest(nonce(0), [digest])
        found = []
        for step in (lambda: None, lambda: desk.consume(0), lambda: desk.house.evm.mine_many(1)):
            step()
            eth = row(desk.house.attestor().statement())
            found.append((eth.held, eth.in_flight))
            assert surplus(eth) == before  # what flies settles what is held for it
        assert found == [(3 * E18, E18)] * 3
        desk.house.evm.mine_many(1)
        assert (row(attestor.statement()).held, row(attestor.statement()).in_flight) == (4 * E18, 0)

    def test_other_nonce_ends_nothing(self) -> None:
        """The nonce before it was consumed, its own was not."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(1), [digest])
        desk.consume(0)
        desk.house.evm.mine_many(3)
        assert row(attestor.statement()).in_flight == E18

    def test_a_coin_of_bitcoin(self) -> None:
        """An outpoint counts with its maximum fee until a final block spends it."""
        desk = Desk()
        proof = next(s.proof for b in desk.house.btc._blocks for s in b.arrivals)
        assert isinstance(proof, BitcoinProof)
        anchor = Anchor(BTC.name, certificate(Tier.CUSTOMER_HOT, BTC).wallet, f"{proof.txid.hex()}:{proof.vout}")
        digest, attestor = desk.hold(chain=BTC.name, amount=100_000), desk.house.attestor()
        assert Rule.COIN_GONE in refused(attestor, replace(anchor, reference=f"{'00' * 32}:0"), digest)
        named = row(attestor.attest(anchor, [digest]), "BTC")
        assert (named.held, named.in_flight) == (105_000, 0)
        flying = row(attestor.statement(), "BTC")
        assert (flying.held, flying.in_flight) == (0, 105_000)
        assert isinstance(desk.house.btc, CoinChain)
        desk.house.btc.mine()
        desk.house.btc.spent = {anchor.reference: desk.house.btc.head().height}  # type: ignore[attr-defined]
        assert row(attestor.statement(), "BTC").in_flight == 105_000
        desk.house.btc.mine_many(2)
        assert row(attestor.statement(), "BTC").in_flight == 0
        assert refused(attestor, anchor, digest) == {Rule.ANCHOR_SPENT}

    def test_a_coin_that_is_not_final(self) -> None:
        """A reorg could take it, and with it the intent's only anchor."""
        desk = Desk()
        desk.house.btc.mine((COIN, address_of("bo", BTC, 1), 70_000))
        proof = desk.house.btc._blocks[-1].arrivals[0].proof
        assert isinstance(proof, BitcoinProof)
        anchor = Anchor(BTC.name, certificate(Tier.CUSTOMER_HOT, BTC).wallet, f"{proof.txid.hex()}:0")
        digest = desk.hold(chain=BTC.name, amount=100_000)
        assert refused(desk.house.attestor(), anchor, digest) == {Rule.COIN_GONE}
        desk.house.btc.mine_many(2)
        desk.house.settle(desk.house.btc)
        desk.house.attestor().attest(anchor, [digest])

    def test_coins_that_are_credited(self) -> None:
        """Customers' and nobody's alike: what the ledger has credited to the wallet may be spent together."""
        desk = Desk()
        unbound = DERIVE.derive(certificate(Tier.CUSTOMER_HOT, BTC), Branch.RECEIVE, 3)
        anchor, digest = desk.permitted(desk.coin(address_of("bo", BTC, 1)), desk.coin(unbound))
        assert [facts.intent for facts in desk.house.attestor().attest(anchor, [digest]).message.intents] == [digest]

    @pytest.mark.parametrize("index", [0, 1], ids=["the anchor", "a later input"])
    def test_a_coin_that_no_entry_credited(self, index: int) -> None:
        """Though it is final and the wallet's: what the books do not have, they cannot explain when it is spent."""
        desk = Desk()
        coins = [desk.coin(address_of("bo", BTC, 1)), desk.coin(address_of("bo", BTC, 1), booked=False)]
        anchor, digest = desk.permitted(*(coins if index else coins[::-1]))
        attestor = desk.house.attestor()
        assert refused(attestor, anchor, digest) == {Rule.COIN_GONE}
        desk.house.settle(desk.house.btc)
        attestor.attest(anchor, [digest])

    def test_a_coin_that_nobody_watches(self) -> None:
        """Paid by whoever knows the descriptor, beyond every index that is watched; the node lists it, the books do not."""
        desk = Desk()
        far = DERIVE.derive(certificate(Tier.CUSTOMER_HOT, BTC), Branch.RECEIVE, 500)
        anchor, digest = desk.permitted(desk.coin(address_of("bo", BTC, 1)), desk.coin(far))
        assert refused(desk.house.attestor(), anchor, digest) == {Rule.COIN_GONE}

    def test_company_coins_are_no_outflow(self) -> None:
        """What leaves the operational tier was no reserve; a fee sweep's coins were."""
        desk = Desk()
        vendor = desk.hold(
            account="company", purpose="vendor_payment", tier=Tier.OPERATIONAL, destination_kind="allow_listed"
        )
        attestor = desk.house.attestor()
        attestor.attest(nonce(0, Tier.OPERATIONAL), [vendor])
        assert row(attestor.statement()).in_flight == 0

    def test_fee_sweep_counts(self) -> None:
        """Its units are in the statement's matured fees, off everybody else's, and in flight though nobody is owed them."""
        desk = Desk()
        message = ledger.settlement(ledger.trade(units=E18, usd=100, fees=[FeeLeg("ana", "ETH", 10**15)]))
        signed = Signed(message, (ed25519("settler").sign(deployment().domain.digest(message)),))
        record_settlement(desk.house.store, roster(), signed, ledger.SCHEDULE, ASSETS, desk.house.clock())
        desk.house.clock.now += 3600
        desk.quote()
        place = Address(EVM, desk.house.wallet(Tier.OPERATIONAL, EVM).place).text
        digest = desk.hold(
            account="company", purpose="fee_sweep", amount=10**14, destination=place, destination_kind="internal_wallet"
        )
        attestor = desk.house.attestor()
        assert row(attestor.statement()).matured_fees == 9 * 10**14
        named = attestor.attest(nonce(0), [digest])
        assert (row(named).matured_fees, facts(named, digest).swept_24h) == (10**15, 10**14)
        assert facts(named, digest).destination_after == 5 * E18 + 10**14
        assert (row(attestor.statement()).in_flight, row(attestor.statement()).held) == (10**14, 0)

    def test_a_move_inside_is_no_outflow(self) -> None:
        """Between customer wallets only the fee leaves, and on Bitcoin nothing more."""
        desk = Desk()
        cold = DERIVE.derive(certificate(Tier.CUSTOMER_COLD, BTC), Branch.CHANGE, 0).text
        proof = next(s.proof for b in desk.house.btc._blocks for s in b.arrivals)
        assert isinstance(proof, BitcoinProof)
        anchor = Anchor(BTC.name, certificate(Tier.CUSTOMER_HOT, BTC).wallet, f"{proof.txid.hex()}:0")
        digest = desk.unheld(chain=BTC.name, amount=100_000, maximum_fee=0, destination=cold)
        attestor = desk.house.attestor()
        named = attestor.attest(anchor, [digest])
        assert facts(named, digest).destination_after == 100_000
        assert row(attestor.statement(), "BTC").in_flight == 0


def silent(attestor: Attestor) -> set[Rule]:
    """Rules by which it says nothing at all."""
    with pytest.raises(Refused) as caught:
        attestor.statement()
    return rules_of(caught.value)


class TestFreed:
    """Once it was attested, only the final consumption of its anchor frees a hold, whatever the store was told."""

    def final(self, desk: Desk, number: int) -> None:
        """A final block has consumed the nonce."""
        desk.consume(number)
        desk.house.evm.mine_many(3)

    def test_released_though_it_was_attested(self) -> None:
        """No permit was recorded, the customer cancels in good faith, the signed payout goes out: both would be paid."""
        desk = Desk()
        digest, attestor = desk.hold(amount=6 * E18), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        head = desk.house.memory.attested()
        desk.release(digest)
        second = desk.hold(amount=5 * E18)
        assert silent(attestor) == {Rule.SIGNATURE_ASKED}
        self.final(desk, 0)
        for asked in (attestor, desk.house.attestor()):  # and a restart forgets nothing
            assert silent(asked) == {Rule.SIGNATURE_ASKED}
            assert refused(asked, nonce(1), second) == {Rule.SIGNATURE_ASKED}
        assert desk.house.memory.attested() == head

    def test_released_long_after_its_anchor_was_consumed(self) -> None:
        """A flight that ended, and is no longer listed, was paid all the same."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        self.final(desk, 0)
        attestor.statement()
        desk.house.clock.now += 2 * DAY
        desk.house.evm.mine_many(3)
        desk.house.memory.land([b"other"], desk.house.clock())
        assert desk.house.memory.flights() == []
        desk.release(digest)
        assert silent(attestor) == {Rule.SIGNATURE_ASKED}

    def test_cancelled_before_it_was_attested(self) -> None:
        """Nobody was asked: it ends, is not attested any more, and the balance pays another."""
        desk = Desk()
        digest, attestor = desk.hold(amount=6 * E18), desk.house.attestor()
        attestor.statement()
        desk.release(digest)
        assert (row(attestor.statement()).held, row(attestor.statement()).in_flight) == (0, 0)
        assert refused(attestor, nonce(0), digest) == {Rule.HOLD}
        attestor.attest(nonce(0), [desk.hold(amount=6 * E18)])

    def test_voided(self) -> None:
        """The void of its own anchor, final: the hold is free, and nothing flies."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        self.final(desk, 0)
        desk.execute(nonce(0), digest, void=True)
        eth = row(attestor.statement())
        assert (eth.available, eth.held, eth.in_flight) == (11 * E18, 0, 0)

    @pytest.mark.parametrize("void", [False, True], ids=["paid another", "voided"])
    @pytest.mark.parametrize("first", [False, True], ids=["then released", "released before"])
    def test_its_anchor_was_consumed_without_it(self, void: bool, first: bool) -> None:
        """It was attested, and the final transaction of that anchor is another payload: nothing can pay it any more."""
        desk = Desk()
        digest, other, attestor = desk.hold(), desk.hold(amount=2 * E18), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        attestor.attest(nonce(0), [other])
        if first:
            desk.release(digest)
            assert silent(attestor) == {Rule.SIGNATURE_ASKED}
        self.final(desk, 0)
        desk.execute(nonce(0), other, void=void)
        if not first:
            attestor.statement()
            desk.release(digest)
        eth = row(attestor.statement())
        assert (eth.held, eth.in_flight) == (0, 0)

    def test_freed_by_another_anchors_void(self) -> None:
        """A true void, of another nonce, names it among what it burns."""
        desk = Desk()
        digest, other, attestor = desk.hold(), desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [other])
        attestor.attest(nonce(1), [digest])
        self.final(desk, 0)
        desk.execute(nonce(0), other, digest, void=True)
        assert silent(attestor) == {Rule.INTENT_BOUND}

    def test_no_flight_ends_while_it_may_have_been_paid(self) -> None:
        """Where a head was vouched for over such a release before, its coins count as leaving for ever."""
        desk = Desk()
        digest, attestor = desk.hold(amount=6 * E18), desk.house.attestor()
        attestor.attest(nonce(0), [digest])
        desk.release(digest)
        head = desk.house.memory.attested()
        assert head is not None
        desk.house.memory.extend(head, desk.run(lambda work: work.journal.head()))
        self.final(desk, 0)
        assert surplus(row(attestor.statement())) == -6 * E18
        assert refused(attestor, nonce(1), desk.hold(amount=5 * E18)) == {Rule.INSUFFICIENT_BALANCE}


class TestHolds:
    """That the hold stands is recomputed; no row says it."""

    def test_none(self) -> None:
        """Nobody held for it."""
        desk = Desk()
        _, intent = desk.intent()
        assert refused(desk.house.attestor(), nonce(0), deployment().domain.digest(intent)) == {Rule.HOLD}

    def test_a_row_without_its_hold(self) -> None:
        """A transfer inserted into the table, proposal and all, holds nothing."""
        desk = Desk()
        digest = desk.unheld(account="customer:ana", purpose="withdrawal")
        assert refused(desk.house.attestor(), nonce(0), digest) == {Rule.HOLD}

    @pytest.mark.parametrize(
        ("signers", "changes", "rules"),
        [
            pytest.param(["backend"], {}, set(), id="proposed"),
            pytest.param(["settler"], {}, {Rule.HOLD}, id="signed by the settling key"),
            pytest.param([], {}, {Rule.HOLD}, id="signed by nobody"),
            pytest.param(["backend"], {"initiator": "ana"}, {Rule.HOLD}, id="another initiator"),
            pytest.param(["backend"], {"proposal": bytes(32)}, {Rule.HOLD}, id="another proposal"),
        ],
    )
    def test_a_move_that_holds_nothing_proves_itself(
        self, signers: list[str], changes: dict[str, Any], rules: set[Rule]
    ) -> None:
        """Where the journal has nothing to say, the initiator's signature has."""
        desk = Desk()
        digest = desk.unheld(signers, **changes)
        if rules:
            assert refused(desk.house.attestor(), nonce(0), digest) == rules
        else:
            assert desk.house.attestor().attest(nonce(0), [digest]).message.intents[0].hold_stands

    def test_released(self) -> None:
        """Somebody said no."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        desk.release(digest)
        assert refused(attestor, nonce(0), digest) == {Rule.HOLD}

    @pytest.mark.parametrize("seen", [False, True], ids=["never attested", "attested before"])
    def test_amount_edited_in_the_database(self, seen: bool) -> None:
        """The journal's entry says another amount, hashes and all made right again."""
        desk = Desk()
        digest, attestor = desk.hold(), desk.house.attestor()
        if seen:
            attestor.statement()
        entries = desk.house.store._state.entries
        origin = entries[-1].entry.origin
        assert isinstance(origin, Hold)
        forged = replace(origin, intent=replace(origin.intent, amount=2 * E18))
        entry = holds.hold(forged, ASSETS)
        assert entry is not None
        before = JournalHead(entries[-2].position, entries[-2].hash)
        entries[-1] = JournalEntry.append(before, entry, entries[-1].recorded_at)
        other = deployment().domain.digest(forged.intent)
        for asked in (digest, other):
            assert refused(attestor, nonce(0), asked) == {Rule.HISTORY_CHANGED if seen else Rule.PROPOSAL_MISMATCH}

    def test_row_changed(self) -> None:
        """A row that holds nothing is edited: it is no longer what its digest says."""
        desk = Desk()
        digest = desk.unheld()
        rows = desk.house.store._state.rows.transfers
        rows[digest] = replace(rows[digest], intent=replace(rows[digest].intent, amount=5))
        assert refused(desk.house.attestor(), nonce(0), digest) == {Rule.HOLD}

    def test_wallet_has_the_coins(self) -> None:
        """What holds nothing still needs coins in the wallet that pays, all that flies taken off."""
        desk = Desk()
        first, second = desk.unheld(amount=7 * E18), desk.unheld(amount=5 * E18)
        attestor = desk.house.attestor()
        attestor.attest(nonce(0), [first])
        assert refused(attestor, nonce(1), second) == {Rule.INSUFFICIENT_BALANCE}
        assert refused(desk.house.attestor(), nonce(0), first, second) == {Rule.INSUFFICIENT_BALANCE}


class TestFacts:
    """What policy asks, by the attestor's own data."""

    def test_windows_count_what_is_pending(self) -> None:
        """Splitting gains nothing: every pending transfer of the account, the wallet, the initiator counts, this one too."""
        desk = Desk()
        one, two = desk.hold(), desk.hold(amount=2 * E18)
        other = desk.hold(account="customer:bo", asset="USD", amount=5_000_000)
        signed = desk.house.attestor().attest(nonce(0), [one, two, other])
        first, last = facts(signed, one), facts(signed, other)
        assert (first.usd, first.customer_24h) == (3000 * 10**6, 9000 * 10**6)
        assert (last.usd, last.customer_24h) == (5_000_000, 5_000_000)
        assert {f.wallet_1h for f in signed.message.intents} == {9005 * 10**6}
        assert {f.initiator_24h for f in signed.message.intents} == {9005 * 10**6}

    @pytest.mark.parametrize(
        ("age", "told"),
        [
            pytest.param(HOUR - 1, (6000, 6000, 6000), id="within the hour"),
            pytest.param(HOUR, (6000, 3000, 6000), id="an hour ago"),
            pytest.param(DAY - 1, (6000, 3000, 6000), id="within the day"),
            pytest.param(DAY, (3000, 3000, 3000), id="a day ago"),
        ],
    )
    def test_completed_ones_leave_their_window(self, age: int, told: tuple[int, int, int]) -> None:
        """Completed transfers count by when they ended."""
        desk = Desk()
        done, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [done])
        desk.consume(0)
        desk.house.evm.mine_many(3)
        attestor.statement()
        desk.execute(nonce(0), done)
        attestor.statement()
        desk.house.clock.now += age
        desk.quote()
        digest = desk.hold()
        found = facts(desk.house.attestor().attest(nonce(1), [digest]), digest)
        assert (found.customer_24h, found.wallet_1h, found.initiator_24h) == tuple(usd * 10**6 for usd in told)

    @pytest.mark.parametrize("how", ["flying", "voided", "backdated"])
    def test_no_row_empties_a_window(self, how: str) -> None:
        """What flies counts; what was voided does not; a backdated end is no end of long ago."""
        desk = Desk()
        first, attestor = desk.hold(), desk.house.attestor()
        attestor.attest(nonce(0), [first])
        if how != "flying":
            desk.consume(0)
            desk.house.evm.mine_many(3)
            desk.house.clock.now += DAY
            attestor.statement()
            desk.quote()
            desk.execute(nonce(0), first, void=how == "voided", at=desk.house.clock() - DAY)
        digest = desk.hold()
        found = facts(attestor.attest(nonce(1), [digest]), digest)
        assert found.customer_24h == (3000 if how == "voided" else 6000) * 10**6

    def test_settled(self) -> None:
        """Fresh inflow by settlements, for a day."""
        desk = Desk()
        message = ledger.settlement(ledger.trade(units=10**17, usd=100_000_000))
        signed = Signed(message, (ed25519("settler").sign(deployment().domain.digest(message)),))
        record_settlement(desk.house.store, roster(), signed, ledger.SCHEDULE, ASSETS, desk.house.clock())
        attestor = desk.house.attestor()
        mine, company = desk.hold(), desk.unheld()
        named = attestor.attest(nonce(0), [mine, company])
        assert (facts(named, mine).settled_24h, facts(named, company).settled_24h) == (100_000_000, 0)
        desk.house.clock.now += DAY
        desk.quote()
        assert facts(attestor.attest(nonce(0), [mine]), mine).settled_24h == 0

    @pytest.mark.parametrize(
        ("feeders", "by", "age"),
        [
            pytest.param(("feed-1",), "", 0, id="one feeder only"),
            pytest.param(("feed-1", "feed-2"), "feed-1", 0, id="one feeder signs for both"),
            pytest.param(("feed-1", "feed-2"), "mallory", 0, id="forged"),
            pytest.param(("feed-1", "feed-2"), "", PRICE_OLDEST + 1, id="stale"),
        ],
    )
    def test_no_price_no_word(self, feeders: Sequence[str], by: str, age: int) -> None:
        """Unknown in USD is unknown; nothing is bound by having asked."""
        desk = Desk()
        desk.house.clock.now += DAY
        desk.quote(feeders, by)
        digest = desk.hold()
        desk.house.clock.now += age
        with pytest.raises(Unavailable):
            desk.house.attestor().attest(nonce(0), [digest])
        desk.quote()
        desk.house.attestor().attest(nonce(1), [digest])


class TestFirstSight:
    """Ages count from what the attestor saw itself."""

    def test_an_enrolment_ages_by_the_statement_clock(self) -> None:
        """A day passes on the devnet's clock; a restart forgets nothing; the row's own year means nothing."""
        desk = Desk()
        enrolment, attestor = desk.enrol(), desk.house.attestor()
        seen = attestor.statement().message.time
        attestor.advance(DAY)
        desk.house.clock.now += 5
        digest = desk.hold(enrolment=enrolment)
        desk.house.clock.now -= 5
        desk.house.clock.now += DAY
        desk.quote()  # prices follow the statement's time as well
        desk.house.clock.now -= DAY
        named = desk.house.attestor().attest(nonce(0), [digest])
        told = facts(named, digest)
        assert (told.destination_first_seen, named.message.time - told.destination_first_seen) == (seen, DAY)
        assert told.first_seen == named.message.time

    def test_not_backdated_by_a_row(self) -> None:
        """First shown with the intent, it is as young as that, whatever its row says."""
        desk = Desk()
        attestor = desk.house.attestor()
        attestor.statement()
        desk.house.clock.now += 100
        digest = desk.hold(enrolment=desk.enrol(), at=NOW - DAY)
        told = facts(attestor.attest(nonce(0), [digest]), digest)
        assert (told.first_seen, told.destination_first_seen) == (NOW + 100, NOW + 100)
        desk.house.clock.now += 50
        again = facts(desk.house.attestor().attest(nonce(0), [digest]), digest)
        assert (again.first_seen, again.destination_first_seen) == (NOW + 100, NOW + 100)

    @pytest.mark.parametrize("by", ["ana", "mallory"])
    def test_nobodys_enrolment_has_no_age(self, by: str) -> None:
        """Only an address authority's word begins to age."""
        desk = Desk()
        enrolment, attestor = desk.enrol(by=by), desk.house.attestor()
        attestor.statement()
        digest = desk.hold(enrolment=enrolment)
        assert facts(attestor.attest(nonce(0), [digest]), digest).destination_first_seen == 0

    def test_an_intent_ages_from_the_first_statement_that_had_it(self) -> None:
        """Holds, and moves that hold nothing, whatever time their rows give."""
        desk = Desk()
        attestor = desk.house.attestor()
        held, unheld = desk.hold(at=NOW - DAY), desk.unheld()
        attestor.statement()
        desk.house.clock.now += 77
        named = desk.house.attestor().attest(nonce(0), [held, unheld])
        assert {f.first_seen for f in named.message.intents} == {NOW}

    def test_a_wallet_of_ours_ages_from_its_certificate(self) -> None:
        """Derived, never enrolled."""
        desk = Desk()
        attestor = desk.house.attestor()
        attestor.statement()
        desk.house.clock.now += 9
        place = Address(EVM, desk.house.wallet(Tier.OPERATIONAL, EVM).place).text
        digest = desk.unheld(destination=place)
        assert facts(attestor.attest(nonce(0), [digest]), digest).destination_first_seen == NOW

    def test_a_damaged_row_hides_no_other(self) -> None:
        """It is told, and not seen; those after it age from now on. Mended it is seen then, by the attestor that stood all along."""
        desk = Desk()
        broken, whole = desk.enrol(), desk.enrol(OTHER_STRANGER)
        attestor = desk.house.attestor()
        desk.house.store._state.rows.damaged.add(broken)
        told = [attestor.statement().message.time, attestor.statement().message.time]
        assert told == [NOW, NOW]
        (why,) = attestor.status()["damaged"]  # type: ignore[misc]
        assert broken.hex() in why
        desk.house.clock.now += 100
        held = [desk.hold(enrolment=broken), desk.hold(enrolment=whole, destination=OTHER_STRANGER)]
        named = attestor.attest(nonce(0), held)
        assert [facts(named, digest).destination_first_seen for digest in held] == [0, NOW]
        desk.house.store._state.rows.damaged.clear()
        desk.house.clock.now += 50
        later = attestor.statement().message.time
        assert attestor.status()["damaged"] == []
        desk.house.clock.now += 50
        named = desk.house.attestor().attest(nonce(0), held)
        assert [facts(named, digest).destination_first_seen for digest in held] == [later, NOW]

    def test_a_damaged_one_that_is_asked_about_hides_no_other(self) -> None:
        """Two payments at once, to addresses that nobody showed before: the sight of one does not wait for the other's row."""
        desk = Desk()
        attestor = desk.house.attestor()
        broken, whole = desk.enrol(), desk.enrol(OTHER_STRANGER)
        desk.house.store._state.rows.damaged.add(broken)
        held = [desk.hold(enrolment=broken), desk.hold(enrolment=whole, destination=OTHER_STRANGER)]
        named = attestor.attest(nonce(0), held)
        assert [facts(named, digest).destination_first_seen for digest in held] == [0, NOW]


def test_moves_forget_what_no_window_counts() -> None:
    """Memory does not grow with the age of a ledger."""
    desk = Desk(
        House(
            evm=PayingChain(EVM, CONFIRMATIONS, start=NOW), btc=CoinChain(BTC, CONFIRMATIONS, start=NOW), clock=Clock()
        )
    )
    first, second = desk.hold(amount=10), desk.hold(amount=20)
    desk.execute(nonce(0), first)
    desk.execute(nonce(1), second, at=NOW + 3 * DAY)
    moves = Moves()
    for recorded in desk.house.store.read(lambda work: work.journal.read(0, 1000)):
        moves.note(recorded, deployment().domain.digest)
    assert set(moves.of) == {second}
    assert moves.of[second] == Move(desk.held(second), NOW + 3 * DAY)
