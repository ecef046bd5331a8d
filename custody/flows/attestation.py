# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor: reads ledger and chains by itself, refuses what it cannot explain, signs what it found (TRUST.md, "Statement").

It believes no row. Roster and certificates are verified from the genesis in its own vault, bindings under its own key, history
from the head it last vouched for, balances from its own books, and coins from its own nodes at one final block per chain.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock
from typing import Final

from custody.flows.attesting_payouts import Asking, Ground, consumed, flown, reserved
from custody.flows.history import History
from custody.flows.inventory import GAP, Inventory, InventoryReader, check_derived
from custody.flows.mirror import ROSTER, rosters_from, upcoming
from custody.flows.panel import Panel, VouchedPanel
from custody.flows.ports import AddressDeriver, AttestorMemory, ChainView, Clock, Prices, Store, UnitOfWork
from custody.flows.prices import PriceReader
from custody.flows.sights import Reading, find, look, remember
from custody.flows.verification import AuditState, audit_journal, compare_totals
from custody.rules.amounts import Asset, Assets
from custody.rules.certificates import DepositAddress, SeatHead
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.in_flight import Flight, Outgoing
from custody.rules.intents import Anchor
from custody.rules.ledger import AccountKind, JournalHead
from custody.rules.provenance import Authorities
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster, RosterVersion, check_genesis, check_lineage, check_version
from custody.rules.settlements import FeeSchedule
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import AssetCoverage, ChainHeight, SafeState, SeatPosition, Statement
from custody.rules.typed import ZERO32, Domain
from custody.rules.wallets import DEVNET_CHAINS, Chain

REORGED: Final = 3600
"""Seconds after its end for which a payout is asked about again: a reorg deeper than finality may take it back before anybody has
reversed its entry, and until then its coins are neither where they were nor owed. Where its hold stands it is asked for ever."""
_TOLD: Final = 5


FirstSight = Callable[[bytes], int]
"""When this attestor first saw a signed document, by its struct hash; now, for ever, where it never did."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What policy owners have put in force so far: the newest bundle's hash, and the fee schedule of each bundle there was."""

    policy: bytes
    schedules: Mapping[bytes, FeeSchedule]


ReadStanding = Callable[[UnitOfWork, Sequence[Roster], int, FirstSight], Standing]
"""Which bundles are or were in force at a time, by the owners' signatures in the mirror and by rosters, oldest first.

A successor's delay counts from this attestor's own first sight. Raises Refused where owners put none in force, Unavailable where
the newest has another asset registry than the one at hand.
"""


@dataclass(frozen=True, slots=True)
class InForce:
    """What this process was opened with: the asset registry, and how to learn which bundles stand, asked for each statement.

    `oldest` is how many seconds old a chain's final block may be; a chain without a limit is never fresh.
    """

    assets: Assets
    oldest: Mapping[Chain, int]
    standing: ReadStanding


def _no_heads() -> Sequence[Signed[SeatHead]]:
    return ()


class Attestor:
    """Implements `AttestorPort`. One call at a time; everything that must outlive it is in its memory, its own vault."""

    def __init__(
        self,
        store: Store,
        nodes: Mapping[Chain, Sequence[ChainView]],
        memory: AttestorMemory,
        derive: AddressDeriver,
        clock: Clock,
        in_force: InForce,
        *,
        seat_heads: Callable[[], Sequence[Signed[SeatHead]]] = _no_heads,
    ) -> None:
        self._store, self._nodes, self._memory, self._derive = store, nodes, memory, derive
        self._clock, self._in_force = clock, in_force
        self._seat_heads = seat_heads
        self._prices, self._enrolled, self._turn = PriceReader(), Reading(), Lock()
        self._reader = InventoryReader(derive)
        self._verified: tuple[tuple[Signed[RosterVersion] | None, Sequence[object]], tuple[Roster, ...]] = (
            (None, ()),
            (),
        )
        self._last_time = 0
        self._standing = Standing(ZERO32, {})
        self._vouched = JournalHead()
        self._forget()

    def _forget(self) -> None:
        """Start over from position 1 at the next statement, with nothing but the vault's word."""
        self._history: History | None = None
        self._audited, self._heights = AuditState(), dict[str, int]()

    # birth

    def identity(self) -> Key:
        """Its Ed25519 key."""
        return self._memory.identity()

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign version 1 before genesis is pinned, a successor after; either has to name this attestor's key. Raises Refused."""
        raise_if(self._check_named(version))
        genesis = self._memory.pinned()
        if genesis is None or genesis.message == version:
            raise_if(check_version(version))
            if version.version != 1 or version.previous != ZERO32:
                raise Refused(
                    [Refusal(Rule.NOT_SUCCESSOR, version=version.version, want="version 1 with a zero predecessor")]
                )
            return self._memory.sign(Domain(version.struct_hash).digest(version))
        roster = self._store.read(self._roster)
        raise_if(check_lineage(roster, version))
        return self._memory.sign(roster.domain.digest(version))

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once, after checking that everybody named signed it. Raises Refused."""
        pinned = self._memory.pinned()
        if pinned is None:
            raise_if((*check_genesis(signed, self.now()), *self._check_named(signed.message)))
        self._memory.pin(signed)

    def status(self) -> dict[str, object]:
        """What it knows, for people: JSON, public, unsigned."""
        pinned, attested = self._memory.pinned(), self._memory.attested() or JournalHead()
        return {
            "identity": self.identity().to_json(),
            "genesis": "0x" + pinned.message.struct_hash.hex() if pinned else None,
            "attested": {"position": str(attested.position), "head": "0x" + attested.hash.hex()},
            "time": str(self.now()),
            "chains": {chain.name: len(views) for chain, views in sorted(self._nodes.items())},
            "damaged": [str(why) for why in islice(self._enrolled.damaged.values(), _TOLD)],
        }

    def _check_named(self, version: RosterVersion) -> Iterator[Refusal]:
        if version.attestor != self._memory.identity():
            yield Refusal(
                Rule.SIGNER_UNKNOWN, field="attestor", got=str(version.attestor), want=str(self._memory.identity())
            )

    def _roster(self, work: UnitOfWork) -> Roster:
        """The newest roster of the mirror, verified from the pinned genesis; one older than was seen before is refused."""
        return self._rosters(work)[-1]

    def _rosters(self, work: UnitOfWork) -> tuple[Roster, ...]:
        """Every version in force so far, oldest first: an old entry is judged by the roster of its time."""
        pinned = self._memory.pinned()
        if pinned is None:
            raise Refused([Refusal(Rule.NOT_PINNED, want="genesis pinned first")])
        documents = work.documents.all(ROSTER)
        known, rosters = self._verified
        if (pinned, documents) != known or len(rosters) != len(
            documents
        ):  # or one of them was still to come into force
            rosters = self._seen_long_enough(rosters_from(documents, pinned.message.struct_hash, self.now()))
            for version in upcoming(documents, rosters[-1], self.now()):
                self._memory.first_sight(version.struct_hash, self.now())
            self._verified = (pinned, documents), rosters
        newest = rosters[-1].version
        raise_if(self._check_named(newest))
        self._memory.see_roster(newest.version, newest.struct_hash)
        return rosters

    def _seen_long_enough(self, rosters: Sequence[Roster]) -> tuple[Roster, ...]:
        """Versions whose predecessor's delay has passed since this attestor first saw them, whatever time they name themselves."""
        found = [rosters[0]]
        for roster in rosters[1:]:
            seen = self._memory.first_sight(roster.version.struct_hash, self.now())
            if self.now() < seen + found[-1].version.delay:
                break
            found.append(roster)
        return tuple(found)

    # time

    def now(self) -> int:
        """Seconds since 1970 by its own clock, moved forward where the genesis declares `clock: statement`."""
        return self._clock() + self._memory.offset()

    def advance(self, seconds: int) -> int:
        """Move the statement clock forward, in a genesis of devnet chains that declares it; gives the time now."""
        version = self._store.read(self._roster).version
        if version.clock != "statement" or not set(version.chains) <= set(DEVNET_CHAINS):
            raise Refused([Refusal(Rule.CLOCK_NOT_DEVNET, clock=version.clock, chains=list(version.chains))])
        self._memory.advance(seconds)
        return self.now()

    # addresses

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """Bind an index of a customer-tier wallet to one customer for ever, and say so. Raises Refused.

        The index stays within the watched window: coins at an address that nobody watches are coins that nobody is owed.
        """
        roster, inventory, customers = self._store.read(self._read_inventory)
        wallet = inventory.wallets.get(request.wallet)
        if wallet is None:
            raise Refused([Refusal(Rule.UNKNOWN_WALLET, wallet=request.wallet.hex())])
        raise_if(check_derived(request, [c.message for c in wallet.certificates[-1:]], self._derive))
        if request.customer not in customers:
            raise Refused([Refusal(Rule.UNKNOWN_CUSTOMER, customer=request.customer)])
        most = wallet.next_index + GAP[wallet.chain.is_evm] - 1
        if request.index > most:
            raise Refused([Refusal(Rule.INDEX_TOO_FAR, index=request.index, most=most)])
        keys = 0 if wallet.chain.is_evm else len(wallet.certificates) - 1
        self._memory.bind(request.wallet, request.index, request.customer, request.address, keys)
        return Signed(request, (self._memory.sign(roster.domain.digest(request)),))

    def _read_inventory(self, work: UnitOfWork) -> tuple[Roster, Inventory, frozenset[str]]:
        roster = self._roster(work)
        return roster, self._reader.read(work, roster), work.customers.ids()

    # statement

    def statement(self) -> Signed[Statement]:
        """Check history from the head it last vouched for, compare every balance, read the chains, sign.

        Raises Refused naming the position at which history does not hold, and Unavailable where nodes are silent or differ. A
        shortfall is no refusal here: it is what the statement says.
        """
        with self._turn:
            return self._speak(None, ())

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """Speak for one payout: as `statement`, and bind these intents to this anchor for ever before anything is signed.

        From then on they are in flight, until a final block consumes the anchor. Asked again while nothing changed it says the
        same with a new number. Without intents it names the anchor only, for a void or a rotation. An anchor may be asked for
        with other intents, as when one of a batch has expired: seats sign one payload for it, and one at most is mined.

        Raises Refused (hold_does_not_stand, insufficient_balance, intent_bound_to_another_anchor, anchor_already_consumed,
        reserved_coin_cannot_be_spent, payload_of_another_wallet, expired, all of `statement`), Unavailable (no price).
        """
        with self._turn:
            return self._speak(anchor, intents)

    def _speak(self, anchor: Anchor | None, intents: Sequence[bytes]) -> Signed[Statement]:
        attested = self._memory.attested() or JournalHead()
        panels = {chain: self._panel(chain, views) for chain, views in self._nodes.items()}
        time = max(self.now(), self._last_time)
        whole = False
        try:
            ground = self._store.read(lambda work: self._examine(work, attested, panels, intents, time))
            whole = True
        finally:
            if not whole:
                self._forget()  # whatever was half taken in is read again
        remember(ground.sighted, self._memory, ground.roster, self._in_force.assets, time)
        self._enrolled = ground.sighted.read
        states = {state.wallet: state for state in self._safe_states(ground, panels)}
        flights = self._landed(ground, panels, states, time)
        asking = None
        if anchor is not None:
            known = self._in_force.assets, time
            asking = Asking(anchor, tuple(intents), ground, flights, panels, states, *known)
            raise_if(asking.refusals())
        body = self._compose(ground, panels, tuple(states.values()), flights, asking, time)
        if ground.ledger.head != attested:
            self._memory.extend(attested, ground.ledger.head)
            self._vouched = ground.ledger.head
        if asking is not None and asking.attested:
            self._memory.attest(asking.attested)  # durable before the signature exists (DESIGN.md, law 5)
        self._last_time = body.time
        return Signed(body, (self._memory.sign(ground.roster.domain.digest(body)),))

    def _landed(
        self, ground: Ground, panels: Mapping[Chain, Panel], states: Mapping[bytes, SafeState], time: int
    ) -> Sequence[Flight]:
        """What is in flight at this statement's final blocks: nothing else than a consumed anchor ends a flight.

        And not where the hold was released though that may have paid it: the coins are gone, and owed again.
        """
        flying = {
            flight.attested.digest: flight.attested.anchor for flight in self._memory.flights() if not flight.ended
        }
        ended = {anchor: consumed(anchor, ground, panels, states) for anchor in set(flying.values())}
        ends = ground.ledger.ends
        landed = [d for d, anchor in flying.items() if ended[anchor] and not ends.may_still_pay(d, anchor)]
        self._memory.land(landed, time)
        known = self._memory.flights()
        doubted = {
            flight.attested.anchor
            for flight in known
            if flight.ended and (flight.attested.digest in ground.ledger.holds or time - flight.ended < REORGED)
        }
        freed = {anchor for anchor in doubted if consumed(anchor, ground, panels, states) is False}
        return [replace(f, ended=0) if f.ended and f.attested.anchor in freed else f for f in known]

    def _examine(
        self, work: UnitOfWork, attested: JournalHead, panels: Mapping[Chain, Panel], asked: Sequence[bytes], time: int
    ) -> Ground:
        """Everything that one ledger snapshot is asked for, and then one final block per chain, never the other way round."""
        rosters = self._rosters(work)
        self._standing = self._in_force.standing(work, rosters, self.now(), self._sight)
        inventory = self._reader.read(work, rosters[-1])
        if self._history is None or self._vouched != attested:
            self._forget()
            self._history, self._vouched = History(attested), attested
        self._history.recheck(work.journal)
        self._history.read(work.journal)
        finals = {Chain(name): self._final(panels, Chain(name), self._history) for name in rosters[-1].version.chains}
        known, schedules = self._in_force.assets, self._standing.schedules
        self._audit(work, Authorities(known, rosters, schedules, inventory.holding_of, inventory.tiers), panels)
        raise_if(_check_heights(finals, self._history.heights))
        self._heights = {chain.name: final.height for chain, final in finals.items()}
        intents = dict(find(work, asked, self._audited, rosters[-1], known, time))
        sighted = look(work, self._audited, inventory, tuple(intents.values()), self._enrolled)
        prices = self._prices.fresh(work.documents, rosters[-1], time) if asked else Prices({})
        pinned = tuple(reserved(work, intents))
        return Ground(rosters[-1], inventory, self._audited, finals, intents, sighted, prices, pinned)

    def _audit(self, work: UnitOfWork, authorities: Authorities, panels: Mapping[Chain, Panel]) -> None:
        if self._audited.head.position:  # what is new since the last statement did not happen before it
            self._audited.moves.floor = max(self._audited.moves.floor, self._last_time)
        findings = audit_journal(work, self._audited, authorities, panels)
        findings += compare_totals(work, self._audited, authorities.assets)
        if findings and all(finding.refusal.rule is Rule.ORIGIN_UNKNOWN for finding in findings):
            raise Unavailable("origins", "; ".join(str(finding) for finding in findings[:_TOLD]))
        raise_if(Refusal(f.refusal.rule, **{**f.refusal.operands, "position": f.position}) for f in findings)
        raise_if(self._audited.ends.check(self._vouched.position, self._memory.bound_to))

    # chains

    def _panel(self, chain: Chain, views: Sequence[ChainView]) -> Panel:
        return VouchedPanel(chain, views, lambda proof: self._history is not None and self._history.vouches_for(proof))

    def _final(self, panels: Mapping[Chain, Panel], chain: Chain, history: History) -> BlockRef:
        """The final block that every node has: fresh, and not below what was attested. Raises Unavailable, Refused.

        A node that went back in time would turn coins that have left into reserves.
        """
        if chain not in panels:
            raise Refused([Refusal(Rule.COVERAGE_UNKNOWN, chain=chain.name, why="no node is known")])
        final = panels[chain].final()
        age, oldest = self.now() - final.time, self._in_force.oldest.get(chain, 0)
        if age > oldest:
            raise Refused([Refusal(Rule.STALE, chain=chain.name, height=final.height, age=age, oldest=oldest)])
        raise_if(_check_heights({chain: final}, {chain.name: history.attested_heights.get(chain.name, 0)}))
        raise_if(_check_heights({chain: final}, {chain.name: self._heights.get(chain.name, 0)}))
        return final

    def _safe_states(self, ground: Ground, panels: Mapping[Chain, Panel]) -> Iterator[SafeState]:
        for wallet in ground.inventory:
            if wallet.chain.is_evm:
                yield panels[wallet.chain].safe_state(wallet.name, wallet.certificate, ground.finals[wallet.chain])

    # composing

    def _compose(
        self,
        ground: Ground,
        panels: Mapping[Chain, Panel],
        safes: tuple[SafeState, ...],
        flights: Sequence[Flight],
        asking: Asking | None,
        time: int,
    ) -> Statement:
        out = flown(ground, flights, self._in_force.assets, asking.anchor if asking is not None else None)
        totals = defaultdict[tuple[AccountKind, Asset], int](int)
        for (account, asset), units in ground.ledger.balances.items():
            totals[account.kind, asset] += units
        facts = asking.facts(partial(self._first_sight, time=time)) if asking is not None else ()
        ripened = max(0, time - self._maturity(asking))
        rows = [self._row(asset, ground, panels, totals, out, ripened) for asset in self._in_force.assets]
        if asking is not None:
            rows = [replace(row, matured_fees=row.matured_fees + asking.unswept(row.asset)) for row in rows]
        return Statement(
            sequence=self._memory.next_sequence(1),
            time=time,
            anchor=() if asking is None else (asking.anchor,),
            intents=facts,
            heights=tuple(ChainHeight(c.name, b.height, b.hash, b.time) for c, b in sorted(ground.finals.items())),
            coverage=tuple(rows),
            safes=safes,
            seats=tuple(self._seat_positions(ground.roster)),
            ledger_position=ground.ledger.head.position,
            ledger_head=ground.ledger.head.hash,
            roster=ground.roster.version.version,
            policy=self._standing.policy,
        )

    def _sight(self, digest: bytes) -> int:
        return self._memory.first_sight(digest, self.now())

    def _first_sight(self, digest: bytes, time: int) -> int:
        """Zero for what was never seen: an enrolment that is nobody's word has no age."""
        return 0 if self._memory.unseen([digest]) else self._memory.first_sight(digest, time)

    def _maturity(self, asking: Asking | None) -> int:
        """Seconds until accrued fees may be swept, by the stricter of the newest bundle and those that these intents pin."""
        pinned = set() if asking is None else {intent.policy for intent in asking.intents.values()}
        standing = self._standing
        return max(standing.schedules[p].maturity for p in {standing.policy, *pinned} & standing.schedules.keys())

    def _row(
        self,
        asset: Asset,
        ground: Ground,
        panels: Mapping[Chain, Panel],
        totals: Mapping[tuple[AccountKind, Asset], int],
        out: Outgoing,
        ripened: int,
    ) -> AssetCoverage:
        addresses, at = ground.inventory.customer_addresses(asset.chain), ground.finals[asset.chain]
        on_chain = panels[asset.chain].balance(asset, addresses, at)
        wallets = (wallet for wallet in ground.inventory if wallet.tier.is_customer)
        in_ledger = sum(ground.ledger.balances.get((wallet.account, asset), 0) for wallet in wallets)
        return AssetCoverage(
            asset=asset.symbol,
            reserves=min(on_chain, in_ledger),
            on_chain=on_chain,
            in_ledger=in_ledger,
            available=totals.get((AccountKind.CUSTOMER_AVAILABLE, asset), 0),
            held=totals.get((AccountKind.CUSTOMER_HELD, asset), 0) - out.held.get(asset.symbol, 0),
            suspense=totals.get((AccountKind.SUSPENSE, asset), 0),
            in_flight=out.units.get(asset.symbol, 0),
            accrued_fees=totals.get((AccountKind.ACCRUED_FEES, asset), 0),
            matured_fees=ground.ledger.matured_fees(asset, ripened),
        )

    def _seat_positions(self, roster: Roster) -> Iterator[SeatPosition]:
        """The newest signed head of each seat of the roster, durable before it is told; one that runs back changes nothing.

        What no seat signed says nothing: if it were refused, one hostile seat would stop every statement, and with it every payout.
        """
        told = []
        for signed in self._seat_heads():
            head = signed.message
            seat = roster.seats.get(head.seat)
            if seat is not None and seat.identity in signed.signers(roster.domain):
                told.append(SeatPosition(head.seat, head.position, head.head))
        yield from (known for known in self._memory.see_heads(told) if known.seat in roster.seats)


def _check_heights(finals: Mapping[Chain, BlockRef], least: Mapping[str, int]) -> Iterator[Refusal]:
    """No chain is read below the newest entry that rests on it: its coins would be owed and not counted."""
    for name, height in sorted(least.items()):
        final = finals.get(Chain(name))
        if final is None or final.height < height:
            yield Refusal(Rule.STALE, chain=name, height=final.height if final else None, least=height)
