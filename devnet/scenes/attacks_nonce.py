# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worker that equivocates: three seats are given different payouts for one nonce, so that none can be signed; and the void."""

from dataclasses import dataclass
from pathlib import Path

from custody.chains.evm.leaves import payment_call, safe_tx
from custody.commands.common import read_signed, write_json
from custody.commands.payout import draft_void, void
from custody.flows import worker as flow
from custody.flows.authorization import SigningPermit
from custody.rules.intents import Void
from custody.rules.payouts import void_safe_tx
from custody.rules.refusals import Rule
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.transfers import Status
from devnet.birth import EVM
from devnet.scenes.attacks import Attacker, claim_seats, refused, rules_of
from devnet.scenes.attacks_people import PAID
from devnet.scenes.desk import Desk, find
from devnet.scenes.stage import Stage
from devnet.story import Story


def equivocation(stage: Stage, story: Story) -> None:
    """Each seat signs what is in itself right; no three sign the same. People kill the nonce, and what it held is free again."""
    story.chapter("Three seats are given different payouts for one nonce; people void it")
    desk = Desk(stage)
    attacker = Attacker(desk)
    to = find(stage, PAID).intent.destination
    desk.quote()
    before = stage.available("alice", "ETH")
    sent = [desk.propose(f"fork-{n}", "alice", "ETH", n * 10**16, to) for n in (1, 2, 3)]
    attacker.step([])
    permit = attacker.permit(sent[0])
    fork = _Fork(stage, attacker.signing(permit, attacker.asked(permit.reservation.anchor)))
    for name, which in (("hot-1", 0), ("hot-2", 1), ("hot-3", 2), ("hot-4", 0)):
        rules = rules_of(lambda name=name, which=which: attacker.seats[name].sign(fork.request(which)))  # type: ignore[misc]
        story.claim(f"seat {name} signs fork-{which + 1} alone, at this nonce", not rules, ", ".join(rules))
    third = fork.request(0)
    for name in ("hot-2", "hot-3"):
        seat, what = attacker.seats[name], "fork-1, which has two of three signatures"
        refused(story, f"seat {name}", what, Rule.ANCHOR_BOUND, lambda seat=seat: seat.sign(third))  # type: ignore[misc]
    flow.step(desk.worker)
    claim_seats(story, "all three together, by the worker", desk.now(sent[0]), Rule.ANCHOR_BOUND)
    _lonely_void(stage, story, attacker, fork)
    _void(stage, story, sent[0].intent.id, stage.world.net.folder / "void.json")
    desk.work(story, *sent)
    ended = [desk.now(transfer).status for transfer in sent]
    story.claim("the nonce is consumed, all three are cancelled", ended == [Status.CANCELLED] * 3, ", ".join(ended))
    free = stage.available("alice", "ETH")
    story.claim("what they held is alice's to use again, to the wei", free == before, free)
    nonces = [
        state.nonce for state in stage.attestor.statement().message.safes if state.wallet == fork.permit.wallet.name
    ]
    consumed = int(fork.permit.permit.reservation.anchor.reference) + 1
    story.claim("the Safe on chain says the same", nonces == [consumed], f"next nonce {nonces}")
    late, seat = fork.request_as_before(0), attacker.seats["hot-1"]
    refused(story, "seat hot-1", "fork-1 once more, after the void", Rule.ANCHOR_BOUND, lambda: seat.sign(late))
    again = desk.propose("fork-1-again", "alice", "ETH", 10**16, to)
    desk.work(story, again)
    story.claim("proposed anew it is paid", desk.now(again).status is Status.COMPLETED, desk.now(again).status)


def _lonely_void(stage: Stage, story: Story, attacker: Attacker, fork: "_Fork") -> None:
    """One person's word kills no nonce, at a seat's own process either."""
    permit = fork.permit.permit
    anchor, safe = permit.reservation.anchor, fork.permit.wallet.certificate.safe[0].address
    one = stage.world.cast.sign(stage.deployment.roster.domain, Signed(Void(anchor, permit.intents), ()), ["ana"])
    payload, statement = void_safe_tx(EVM.name, safe, int(anchor.reference)), stage.attestor.attest(anchor, ())
    asked, seat = Request(payload, fork.permit.wallet.name, statement, void=one), attacker.seats["hot-4"]
    what = "a void that ana alone signed"
    refused(story, "seat hot-4", what, Rule.QUORUM_NOT_REACHED, lambda: seat.sign(asked))


def _void(stage: Stage, story: Story, transfer: str, path: Path) -> None:
    """`bulkhead payout draft-void`, people's signatures, `bulkhead payout void`."""
    cast, domain, home = stage.world.cast, stage.deployment.roster.domain, str(stage.world.net.home)
    draft_void(transfer, path, home)
    drafted = read_signed(path)
    own = cast.sign(domain, drafted, ["ana"])
    twice = own.joined([cast.spare["ana"].sign(domain.digest(drafted.message))])
    for what, signed in (("a void that ana alone signed", own), ("a void that ana signed with both keys", twice)):
        write_json(path, signed.to_json())
        refused(story, "payout void", what, Rule.QUORUM_NOT_REACHED, lambda: void(path, home))
    write_json(path, cast.sign(domain, own, ["dan"]).to_json())
    rules = rules_of(lambda: void(path, home))
    story.claim("ana and dan sign the void of this nonce", not rules, ", ".join(rules))


@dataclass
class _Fork:
    """What the worker may ask: one transfer of the payout alone, at its nonce, with the attestor's word on exactly that."""

    stage: Stage
    permit: SigningPermit

    def __post_init__(self) -> None:
        self._asked: dict[int, Request] = {}

    def request(self, which: int) -> Request:
        """One transfer alone, with a fresh statement."""
        payment, anchor = self.permit.payments[which], self.permit.permit.reservation.anchor
        call = payment_call(payment, self.stage.deployment.bundle.assets, EVM)
        payload = safe_tx(self.permit.wallet.certificate, int(anchor.reference), [call])
        statement = self.stage.attestor.attest(anchor, [payment.intent])
        made = Request(payload, self.permit.wallet.name, statement, (self.permit.material[which],))
        self._asked.setdefault(which, made)
        return made

    def request_as_before(self, which: int) -> Request:
        """The very request that was signed first."""
        return self._asked[which]
