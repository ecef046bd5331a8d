# SPDX-License-Identifier: AGPL-3.0-or-later
"""Audit the journal: order, hashes, balances, and the origin of each entry, asked of a node or of its signers.

`verify_ledger` starts from nothing; whoever audits again and again (the attestor) keeps an `AuditState` and goes on from there.
What cannot be asked is a finding of its own, `origin_could_not_be_checked`, and never passes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from custody.flows.ports import ChainView, Examined, PayoutReader, Store, UnitOfWork
from custody.rules.amounts import Asset, Assets
from custody.rules.ended_holds import Ends
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.hold_origins import Standing
from custody.rules.in_flight import Moves
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind, JournalEntry, JournalHead, Side, entry_hash
from custody.rules.origins import (
    BitcoinProof,
    ChainProof,
    Executed,
    Hold,
    Release,
    Reversal,
    identity_of,
    payout_identity,
)
from custody.rules.provenance import Authorities, check_entry
from custody.rules.refusals import Refusal, Rule
from custody.rules.seat_journal import anchor_key
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain

BATCH: Final = 1000
_EVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, at a position of the journal or about the ledger as a whole (None)."""

    position: int | None
    refusal: Refusal

    def __str__(self) -> str:
        return f"{'ledger' if self.position is None else f'position {self.position}'}: {self.refusal}"


@dataclass(slots=True)
class AuditState:
    """What an audit knows by itself after `head`: everything here is recomputed from entries, nothing read from running totals.

    `credits` holds the hash of each entry that a reorg may take back, `live` the position of each chain event that stands credited
    and of each payout that stands executed, by its block and by its anchor; `coins` are those of Bitcoin among the credits, as
    `chain/txid:vout`; `ended` are the holds that the payout at a position freed, each by its intent and its own position.
    `doubtful` are credits whose proof did not hold when asked and that no reversal has taken back yet, `unproven` reversals whose
    block was not seen to be gone, `unseen` payouts that no node confirmed yet: all are asked again. `holds` are those that stand, by
    their intents' digests. `broken` is what no later answer can mend, told again every time.
    """

    head: JournalHead = field(default_factory=JournalHead)
    balances: dict[tuple[Account, Asset], int] = field(default_factory=lambda: defaultdict(int))
    credits: dict[int, bytes] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    coins: set[str] = field(default_factory=set)
    doubtful: dict[int, ChainProof] = field(default_factory=dict)
    unproven: dict[int, tuple[Reversal, str | None]] = field(default_factory=dict)
    holds: dict[bytes, Standing] = field(default_factory=dict)
    ended: dict[int, tuple[tuple[bytes, int], ...]] = field(default_factory=dict)
    unseen: dict[int, tuple[Executed, tuple[TransferIntent, ...]]] = field(default_factory=dict)
    broken: list[Finding] = field(default_factory=list)
    accrued: dict[Asset, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    moves: Moves = field(default_factory=Moves)
    ends: Ends = field(default_factory=Ends)

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """Base units over all accounts of a kind."""
        return sum(units for (account, of), units in self.balances.items() if account.kind is kind and of == asset)

    def matured_fees(self, asset: Asset, recorded_by: int) -> int:
        """As `Journal.matured_fees`, recomputed: accrued by then, less everything ever swept."""
        steps = self.accrued.get(asset, [])
        ever = steps[-1][1] if steps else 0
        ripe = max((units for ripens, units in steps if ripens <= recorded_by), default=0)
        return max(0, ripe - (ever - self.balances.get((Account(AccountKind.ACCRUED_FEES), asset), 0)))


def verify_ledger(store: Store, authorities: Authorities, views: Mapping[Chain, ChainView]) -> list[Finding]:
    """Everything that is wrong with the ledger, from the first entry on, in one snapshot. Empty means it holds."""
    return store.read(lambda work: _verify(work, authorities, views))


def _verify(work: UnitOfWork, authorities: Authorities, views: Mapping[Chain, ChainView]) -> list[Finding]:
    state = AuditState()
    return [*audit_journal(work, state, authorities, views), *compare_totals(work, state, authorities.assets)]


def audit_journal(
    work: UnitOfWork, state: AuditState, authorities: Authorities, views: Mapping[Chain, ChainView]
) -> list[Finding]:
    """Audit the entries after `state.head` and bring the state up to the newest; doubtful earlier credits are asked again.

    A credit is asked of its node when it is first met, and is final then; a later reversal of it is met as an entry of its own.
    Where the entry at `state.head` is no longer the one that was audited, the finding attested_history_changed is the only one.
    """
    if (changed := _check_kept(work, state.head)) is not None:
        return [changed]
    audit = _Audit(work, state, authorities, _Nodes(views, authorities))
    while batch := work.journal.examine(state.head.position, BATCH):
        for examined in batch:
            audit.row(examined)
    return sorted((*state.broken, *audit.doubts()), key=lambda found: found.position or 0)


def _check_kept(work: UnitOfWork, head: JournalHead) -> Finding | None:
    """A journal cut off or rewritten under an auditor would otherwise look as if nothing new had come."""
    if head.position == 0:
        return None
    found = [row for row in work.journal.examine(head.position - 1, 1) if row.position == head.position]
    recorded = found[0].recorded if found else None
    if (
        recorded is not None
        and not found[0].damage
        and list(_check_chain(None, recorded)) == []
        and recorded.hash == head.hash
    ):
        return None
    got = "no readable entry" if recorded is None else recorded.hash.hex()
    return Finding(head.position, Refusal(Rule.HISTORY_CHANGED, got=got, want=head.hash.hex()))


def compare_totals(work: UnitOfWork, state: AuditState, assets: Assets) -> list[Finding]:
    """The running balances, totals and accrued fees that the store keeps, against those recomputed."""
    kinds: dict[tuple[AccountKind, Asset], int] = defaultdict(int)
    for (account, asset), units in state.balances.items():
        kinds[account.kind, asset] += units
    try:
        kept = {(str(account), asset): units for account, asset, units in work.journal.balances()}
        totals = {(str(kind), asset): units for kind, asset, units in work.journal.totals()}
        matured = {("fees", asset): work.journal.matured_fees(asset, _EVER) for asset in assets}
    except InvalidInput as error:
        return [Finding(None, Refusal(Rule.ROW_DAMAGED, table="balances or totals", why=str(error)))]
    wanted = {(str(account), asset): units for (account, asset), units in state.balances.items()}
    told = (
        ("account", kept, wanted),
        ("total", totals, {(str(kind), asset): units for (kind, asset), units in kinds.items()}),
        ("matured", matured, {("fees", asset): state.matured_fees(asset, _EVER) for asset in assets}),
    )
    return [
        Finding(None, Refusal(Rule.BALANCE_MISMATCH, **{what: key[0]}, asset=key[1].symbol, kept=had, journal=should))
        for what, found, want in told
        for key in sorted({*found, *want}, key=str)
        if (had := found.get(key, 0)) != (should := want.get(key, 0))
    ]


class _Nodes:
    """Asks nodes, and turns whatever cannot be answered into a refusal that says so."""

    def __init__(self, views: Mapping[Chain, ChainView], authorities: Authorities) -> None:
        self._views, self._holding_of = views, authorities.holding_of
        self._final: dict[Chain, int] = {}
        self._down: dict[Chain, Refusal] = {}
        for chain in authorities.assets.chains:
            if chain not in views:
                self._down[chain] = Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why="no node is known")
                continue
            try:
                self._final[chain] = views[chain].final().height
            except Unavailable as error:  # asked once: a node that is away would cost a timeout for each entry
                self._down[chain] = _unknown(chain, error)

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Whether the proof holds at its source and is final; None if so."""
        chain = Chain(proof.chain)
        if chain not in self._final:
            return self._down.get(chain) or Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why="not in the registry")
        try:
            refusal = self._views[chain].confirm(proof)
        except Unavailable as error:
            return _unknown(chain, error)
        except InvalidInput as error:
            return Refusal(Rule.ORIGIN, field=error.field, got=error.got, want=error.want)
        if refusal is None and proof.height > self._final[chain]:
            return Refusal(
                Rule.ORIGIN, field="height", got=proof.height, want=f"at most the final height {self._final[chain]}"
            )
        return refusal

    def confirm_executed(self, executed: Executed, intents: tuple[TransferIntent, ...]) -> Refusal | None:
        """Whether a final transaction consumed the anchor and paid these intents; None if so."""
        chain = Chain(executed.chain)
        if chain not in self._final:
            return self._down.get(chain) or Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why="not in the registry")
        view = self._views[chain]
        if not isinstance(view, PayoutReader):
            return Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why="this node cannot be asked about payouts")
        try:
            refusal = view.confirm_executed(executed, intents, self._holding_of)
        except Unavailable as error:
            return _unknown(chain, error)
        except InvalidInput as error:
            return Refusal(Rule.ORIGIN, field=error.field, got=error.got, want=error.want)
        if refusal is None and executed.height > self._final[chain]:
            most = self._final[chain]
            return Refusal(Rule.ORIGIN, field="height", got=executed.height, want=f"at most the final height {most}")
        return refusal

    def is_orphaned(self, reversal: Reversal) -> Refusal | None:
        """Whether another block than the reversed one is canonical at its height; None if so."""
        chain = Chain(reversal.chain)
        if chain not in self._final:
            return self._down.get(chain) or Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why="not in the registry")
        try:
            block = self._views[chain].block(reversal.height)
        except Unavailable as error:
            return _unknown(chain, error)
        if block is None:
            return Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why=f"no block {reversal.height} yet")
        if block.hash == reversal.orphaned:
            return Refusal(
                Rule.ORIGIN, field="reversal.orphaned", got=block.hash.hex(), want="a block that is not canonical"
            )
        return None


def _unknown(chain: Chain, error: Unavailable) -> Refusal:
    return Refusal(Rule.ORIGIN_UNKNOWN, chain=chain.name, why=str(error))


class _Audit:
    """One pass over new rows; everything it learns, and everything wrong, goes to the state."""

    def __init__(self, work: UnitOfWork, state: AuditState, authorities: Authorities, nodes: _Nodes) -> None:
        self._work, self._state, self._authorities, self._nodes = work, state, authorities, nodes
        self._customers = work.customers.ids()
        self._refused: dict[int, Refusal] = {}

    def row(self, examined: Examined) -> None:
        """Take one row in."""
        state, at = self._state, examined.position
        self._find(at, *examined.damage)
        if at != state.head.position + 1:
            self._find(at, Refusal(Rule.HASH_CHAIN, field="position", got=at, want=state.head.position + 1))
        recorded = examined.recorded
        if recorded is None:  # its hash is lost with it, so the next row cannot hang on it either
            state.head = JournalHead(at, b"")
            return
        self._find(at, *_check_chain(state.head.hash or None, recorded))
        state.head = JournalHead(at, recorded.hash)
        try:
            self._find(at, *self._check_origin(recorded))
        except InvalidInput as error:  # such as a chain that cannot exist: somebody's JSON, not a reason to stop
            self._find(at, Refusal(Rule.ORIGIN, field=error.field, got=error.got, want=error.want))
        for key, units in recorded.entry.changes().items():
            state.balances[key] += units
            if state.balances[key] < 0:
                standing = state.balances[key]
                self._find(
                    at, Refusal(Rule.INSUFFICIENT_BALANCE, account=str(key[0]), asset=key[1].symbol, balance=standing)
                )
        _accrue(state, recorded)
        state.moves.note(recorded, self._authorities.rosters[0].domain.digest)

    def doubts(self) -> Iterator[Finding]:
        """What can be judged only when every entry is known: doubtful credits, and blocks that came back."""
        for at, proof in list(self._state.doubtful.items()):
            refusal = self._refused.get(at) or self._nodes.confirm(proof)
            if refusal is None:
                del self._state.doubtful[at]
            else:
                yield Finding(at, refusal)
        for at, (executed, intents) in list(self._state.unseen.items()):
            refusal = self._nodes.confirm_executed(executed, intents)
            if refusal is None:
                del self._state.unseen[at]
            else:
                yield Finding(at, refusal)
        for at, (reversal, event) in list(self._state.unproven.items()):
            came_back = event is not None and event in self._state.live  # and was credited again
            refusal = None if came_back else self._nodes.is_orphaned(reversal)
            if refusal is None:
                del self._state.unproven[at]
            else:
                yield Finding(at, refusal)

    def _check_origin(self, recorded: JournalEntry) -> Iterator[Refusal]:
        origin, state = recorded.entry.origin, self._state
        credited = self._credited(origin.entry) if isinstance(origin, Reversal) else None
        yield from check_entry(recorded, credited, state.balances, self._customers, self._authorities, state.holds)
        if isinstance(origin, Reversal):
            yield from self._reverse(recorded.position, origin, credited)
        elif isinstance(origin, Executed):
            yield from self._execute(recorded, origin)
        elif isinstance(origin, Hold | Release):
            yield from self._transfer(recorded.position, origin)
        elif not isinstance(origin, Signed):
            yield from self._stand(recorded, {identity_of(origin)})
            state.coins |= _coins(origin)
            refusal = self._nodes.confirm(origin)
            if refusal is not None:
                state.doubtful[recorded.position], self._refused[recorded.position] = origin, refusal

    def _stand(self, recorded: JournalEntry, events: set[str]) -> Iterator[Refusal]:
        """What a block shows stands in the journal once at a time."""
        state, at = self._state, recorded.position
        for event in sorted(events):
            if event in state.live:
                yield Refusal(Rule.ALREADY_RECORDED, event=event, position=state.live[event])
            state.live[event] = at
        state.credits[at] = recorded.hash

    def _reverse(self, at: int, origin: Reversal, reversed_entry: JournalEntry | None) -> Iterator[Refusal]:
        """A reorg took an entry back: what it credited is gone, and the holds that it freed stand again."""
        state, event = self._state, None
        was = None if reversed_entry is None else reversed_entry.entry.origin
        if isinstance(was, ChainProof):
            event = identity_of(was)
            state.coins -= _coins(was)
        elif isinstance(was, Executed):
            event = payout_identity(was)
        if event is not None and state.live.pop(event, None) != origin.entry:
            yield Refusal(Rule.ALREADY_RECORDED, reverses=origin.entry, want="an entry that still stands")
        elif isinstance(was, Executed):
            yield from self._undo(origin.entry, was)
        state.doubtful.pop(origin.entry, None)
        state.unproven[at] = (origin, event)

    def _undo(self, at: int, was: Executed) -> Iterator[Refusal]:
        """What a payout's entry ended stands again: its anchor may pay in another block."""
        state = self._state
        state.live.pop(anchor_key(was.anchor), None)
        state.unseen.pop(at, None)
        state.ends.undo(at, was)
        for digest, position in state.ended.pop(at, ()):
            held = self._work.journal.get(position)
            origin = None if held is None else held.entry.origin
            if not isinstance(origin, Hold) or self._authorities.rosters[0].domain.digest(origin.intent) != digest:
                yield Refusal(Rule.HISTORY_CHANGED, position=position, want=f"the hold of {digest.hex()}")
                continue
            state.holds[digest] = Standing(position, origin.intent)
            state.moves.undo(digest, origin.intent)

    def _execute(self, recorded: JournalEntry, origin: Executed) -> Iterator[Refusal]:
        """The final end of an anchor: it frees the holds of its intents, until a reorg takes its block back."""
        at, holds = recorded.position, self._state.holds
        yield from self._stand(recorded, {payout_identity(origin), anchor_key(origin.anchor)})
        self._state.ends.note(at, origin)
        freed = {digest: holds.pop(digest) for digest in origin.intents if digest in holds}
        self._state.ended[at] = tuple((digest, standing.position) for digest, standing in freed.items())
        paid = () if origin.void else tuple(standing.intent for standing in freed.values())
        self._state.unseen[at] = (origin, paid)

    def _transfer(self, at: int, origin: Hold | Release) -> Iterator[Refusal]:
        """Follow each hold from its entry to the one entry that ends it."""
        holds = self._state.holds
        if isinstance(origin, Release):
            self._state.ends.note(at, origin)
            holds.pop(origin.intent, None)
            return
        digest = self._authorities.rosters[0].domain.digest(origin.intent)
        if digest in holds:
            yield Refusal(Rule.ALREADY_RECORDED, kind="hold", id=digest.hex(), position=holds[digest].position)
        holds[digest] = Standing(at, origin.intent)

    def _credited(self, position: int) -> JournalEntry | None:
        """The entry that a reversal names, as it was when it was audited: the row may have been changed since."""
        known = self._state.credits.get(position)
        if known is None:
            return None
        try:
            found = self._work.journal.get(position)
        except InvalidInput:
            return None
        if found is None or entry_hash(found.position, found.recorded_at, found.previous, found.entry) != known:
            return None
        return found

    def _find(self, position: int, *refusals: Refusal) -> None:
        self._state.broken.extend(Finding(position, refusal) for refusal in refusals)


def _coins(proof: ChainProof) -> set[str]:
    """The output that a proof shows, where it shows one."""
    return {f"{proof.chain}/{proof.txid.hex()}:{proof.vout}"} if isinstance(proof, BitcoinProof) else set()


def _check_chain(previous: bytes | None, recorded: JournalEntry) -> Iterator[Refusal]:
    """The entry hangs on the hash before it, where that is known, and has the hash that it says."""
    if previous is not None and recorded.previous != previous:
        yield Refusal(Rule.HASH_CHAIN, field="previous", got=recorded.previous.hex(), want=previous.hex())
    computed = entry_hash(recorded.position, recorded.recorded_at, recorded.previous, recorded.entry)
    if recorded.hash != computed:
        yield Refusal(Rule.HASH_CHAIN, field="hash", got=recorded.hash.hex(), want=computed.hex())


def _accrue(state: AuditState, recorded: JournalEntry) -> None:
    for posting in recorded.entry.postings:
        if posting.account.kind is AccountKind.ACCRUED_FEES and posting.side is Side.CREDIT:
            steps = state.accrued[posting.amount.asset]
            ripened, before = steps[-1] if steps else (0, 0)
            steps.append((max(ripened, recorded.recorded_at), before + posting.amount.units))
