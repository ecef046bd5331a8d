# SPDX-License-Identifier: AGPL-3.0-or-later
"""One look at every hot wallet, and a signed proposal for each move that is wanted. People still approve it, by policy.

Killing it at any moment loses and repeats nothing: the key of a proposal is worked out from the store, and the store takes it once.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from custody.flows import proposals
from custody.flows.kernel import Kernel
from custody.flows.ports import ChainView, Clock, Damaged, Store, UnitOfWork
from custody.flows.rebalancing import Direction, InFlight, Rests, Turn, Wanted, key_of, pair, plan, read_chain
from custody.rules.amounts import Asset
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.holds import native_of
from custody.rules.intents import Proposal
from custody.rules.ledger import Account, AccountKind
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.roster import Roster
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain
from custody.rules.walls import COMPANY

DAY: Final = 86_400
LIVES: Final = 3
"""Days, the one begun included, that people have to approve; a later proposal starts from balances of then."""
_UNFINISHED: Final = tuple(status for status in Status if not status.is_final)


@dataclass(frozen=True)
class Rebalancer:
    """What a cycle is composed of. `kernel` is asked once a cycle; `key` and `sign` are the initiator's, whom the roster names."""

    store: Store
    kernel: Callable[[], Kernel]
    views: Mapping[Chain, ChainView]
    key: Key
    sign: Callable[[bytes], Signature]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Line:
    """What a cycle found for one asset, or for a chain that did not answer: `proposed` has the transfer, `why` says it in words.

    A `fault` is for people to mend: what does not answer, what is denied, and an asset of which a row is damaged.
    """

    what: str
    wanted: Wanted | None
    why: str
    proposed: Transfer | None = None
    fault: bool = False


def cycle(parts: Rebalancer, *, dry: bool = False) -> tuple[Line, ...]:
    """Look once and propose. A chain that does not answer is said, and nothing of it proposed; others go on.

    So is an asset of which a row is damaged: what it moves is unknown, and no other asset waits for whoever mends it.

    `dry` proposes nothing. Raises Refused where the roster does not name the key or a bundle has no levels; Unavailable where
    store or kernel cannot be read.
    """
    kernel, now = parts.kernel(), parts.clock()
    initiator = initiator_of(kernel.roster, parts.key)
    if not kernel.policies.newest.hot:
        want = "hot_wallet_floor, hot_wallet_target and hot_wallet_cap in the limits of the bundle in force"
        raise Refused([Refusal(Rule.POLICY_DENIES, bundle=kernel.policies.newest.hash.hex(), want=want)])
    found: list[Line] = []
    for chain in kernel.assets.chains:
        found += _on_chain(parts, kernel, chain, initiator, now, dry=dry)
    return tuple(found)


def initiator_of(roster: Roster, key: Key) -> str:
    """Whose key it is. Raises Refused: a stranger's, or a program's that may not propose."""
    client, person = roster.clients_by_key.get(key), roster.people_by_key.get(key)
    if client is not None and "propose" not in client.scopes:
        raise Refused([Refusal(Rule.SCOPE_MISSING, client=client.id, want="propose")])
    if client is None and person is None:
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, key=str(key), want="an API client or person of the newest roster")])
    return client.id if client is not None else person.id if person is not None else ""


def _on_chain(parts: Rebalancer, kernel: Kernel, chain: Chain, initiator: str, now: int, *, dry: bool) -> list[Line]:
    found: list[Line] = []
    try:
        view = parts.views.get(chain)
        if view is None:
            raise Unavailable(str(chain), "no node to read its balances from")
        readings = read_chain(kernel, chain, view)
        flight = parts.store.read(lambda work: snapshot(work, kernel, chain, initiator))
        planned = plan(kernel, chain, readings, flight, now)
    except (Unavailable, Refused, InvalidInput) as error:
        return [Line(str(chain), None, str(error), fault=True)]
    for item in planned:
        if isinstance(item, Rests):
            found.append(Line(item.asset.symbol, None, item.why, fault=item.fault))
        else:
            found.append(_ask(parts, kernel, item, now, dry=dry))
    return found


def snapshot(work: UnitOfWork, kernel: Kernel, chain: Chain, initiator: str) -> InFlight:
    """Everything unfinished, both wallets' accounts, the company's surplus and the newest proposals, as of one moment."""
    hot, cold = pair(kernel, chain)
    assets, after, found = tuple(kernel.assets.on(chain)), 0, list[Transfer | Damaged]()
    while page := work.transfers.examine(after, 500, statuses=_UNFINISHED):
        found += [each for _, each in page]
        after = page[-1][0]
    damaged = [each for each in found if isinstance(each, Damaged)]
    unread = {asset.symbol: str(each.why) for each in damaged for asset in assets if may_concern(each, kernel, asset)}
    turns = dict[tuple[str, Direction], Turn]()
    for asset in assets:
        try:
            turns |= {(asset.symbol, way): _turn(work, initiator, hot.name, asset.symbol, way) for way in Direction}
        except InvalidInput as error:  # a proposal of our own is damaged: what we asked for last is not known
            unread[asset.symbol] = str(error)
    native = native_of(chain.name, kernel.assets)
    return InFlight(
        transfers=[each for each in found if isinstance(each, Transfer)],
        ledger={(w.name, a.symbol): work.journal.balance(w.account, a) for w in (hot, cold) for a in assets},
        surplus={native.symbol: work.journal.balance(Account(AccountKind.COMPANY_SURPLUS), native)},
        turns=turns,
        unread=unread,
    )


def may_concern(damaged: Damaged, kernel: Kernel, asset: Asset) -> bool:
    """Whether a transfer whose row is damaged may move this asset, or pay its fee in it.

    Its assets are what its row and its document say. Where that cannot be read it may be anything on the chain of its wallet; where
    that is no wallet of ours, anything.
    """
    known = {each.symbol: each for each in kernel.assets}
    if damaged.assets and damaged.assets <= known.keys():
        pays_fee = asset.contract is None and kernel.maximum_fee.get(asset.chain, 0) > 0
        on_chain = any(known[symbol].chain == asset.chain for symbol in damaged.assets)
        return asset.symbol in damaged.assets or (pays_fee and on_chain)
    wallet = None if damaged.wallet is None else kernel.inventory.wallets.get(damaged.wallet)
    return wallet is None or wallet.chain == asset.chain


def _turn(work: UnitOfWork, initiator: str, hot: bytes, asset: str, direction: Direction) -> Turn:
    """The first number that is not taken; numbers are taken in order, so it is found by doubling and halving."""

    def asked(number: int) -> Transfer | None:
        known = work.transfers.asked(initiator, key_of(hot, asset, direction, number))
        return None if known is None else known[1]

    if asked(0) is None:
        return Turn()
    taken, free = 0, 1
    while asked(free) is not None:
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if asked(middle) is not None else (taken, middle)
    return Turn(free, asked(taken))


def proposal_of(wanted: Wanted, now: int) -> Proposal:
    """What is signed: the same for the same situation all day, its expiry included."""
    until = (now // DAY + LIVES) * DAY
    chain, asset = wanted.asset.chain.name, wanted.asset.symbol
    return Proposal(wanted.key, COMPANY, chain, asset, wanted.units, wanted.destination, wanted.purpose.value, until)


def _ask(parts: Rebalancer, kernel: Kernel, wanted: Wanted, now: int, *, dry: bool) -> Line:
    """Propose, unless policy would deny it: a denied one would be recorded and stand in nobody's way, cycle after cycle."""
    message, symbol = proposal_of(wanted, now), wanted.asset.symbol
    try:
        signed = Signed(message, (parts.sign(kernel.roster.domain.digest(message)),))
        draft = proposals.dry_run(parts.store, kernel, signed, now)
        if draft.decision.outcome is Outcome.DENY:
            told = "; ".join(str(refusal) for refusal in draft.decision.refusals())
            return Line(symbol, wanted, f"{wanted.why}; policy denies it: {told}", fault=True)
        if draft.short:
            told = "; ".join(str(refusal) for refusal in draft.short)
            return Line(symbol, wanted, f"{wanted.why}; it cannot be held: {told}", fault=True)
        if dry:
            return Line(symbol, wanted, f"{wanted.why}; policy asks: {draft.decision.requirement or 'nobody'}")
        made = proposals.propose(parts.store, kernel, signed, wanted.key, now, os.urandom(10))
    except (Unavailable, Refused, InvalidInput) as error:
        return Line(symbol, wanted, _told(wanted, error), fault=True)
    return Line(symbol, wanted, wanted.why, made)


def _told(wanted: Wanted, error: CustodyError) -> str:
    mismatch = isinstance(error, Refused) and all(r.rule is Rule.IDEMPOTENCY_MISMATCH for r in error.refusals)
    return f"{wanted.why}; {'another process proposed it first' if mismatch else error}"
