# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead approve | reject | transfers`: a person reads what would move, worked out again, and signs exactly that."""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from typer.testing import CliRunner

from custody import bootstrap, parts, working
from custody.commands.approve import app, reject_app, transfers_app
from custody.commands.payout import app as payout_app
from custody.commands.sign import app as sign_app
from custody.flows import reviewing
from custody.flows.kernel import Kernel
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Tier
from tests.fakes import treasury
from tests.fakes.seat import EVM, NOW, rules_of
from tests.fakes.treasury import HELD, Treasury, inside, proposal
from tests.fakes.trust import PAYEE, answers, world

ETHER = 10**18


def read(shop: Treasury, transfer: Transfer, said: Any = None) -> str:
    """What a person would read."""
    seen = reviewing.review(shop.store, shop.kernel, transfer, said or treasury.statement(shop.now), shop.now)
    return "\n".join(reviewing.words(shop.kernel, seen, shop.now))


def test_words_say_everything() -> None:
    """Amount, tiers, owner, who asked, which rules ask for whom, who said yes and who is missing, coverage, and the digest."""
    shop = Treasury()
    transfer = shop.propose()
    shop.approve(transfer, "ana")
    told = read(shop, transfer)
    for wanted in (
        "moves         1 ETH   (1000000000000000000 base units)",
        f"from          customer_hot on {EVM.name}",
        "to            outside: customer_withdrawal of customer:ada",
        PAYEE[EVM.name],
        "debits        customer:ada",
        "proposed by   backend (customer), reference 'order 1'",
        "policy        asks for ",
        "(P01)",
        "approved by   ana",
        "missing     ['1 of risk']",
        "coverage      ETH: surplus ",
        "paid by the relayer",
        f"0x{transfer.digest.hex()}",
    ):
        assert wanted in told, told
    assert "WARNING" not in told


def test_words_name_both_tiers_of_a_move() -> None:
    """A move inside says from which tier to which."""
    shop = Treasury()
    transfer = shop.propose(inside(Tier.CUSTOMER_COLD), by="desk")
    told = read(shop, transfer)
    assert "from          customer_hot" in told
    assert "to            customer_cold, a wallet of ours" in told


def test_coverage_before_and_after() -> None:
    """A withdrawal leaves the surplus as it is and takes reserves; a fee sweep takes both."""
    shop = Treasury()
    said = treasury.statement(shop.now, reserves=110 * ETHER, available=100 * ETHER)
    told = read(shop, shop.propose(), said)
    assert "ETH: surplus 10 before, 10 after; reserves 110 before, 109 after" in told
    sweep = inside(Tier.OPERATIONAL, purpose="fee_sweep", amount=ETHER)
    told = read(shop, shop.propose(sweep, by="finance", key="k2", number=2), said)
    assert "ETH: surplus 10 before, 9 after; reserves 110 before, 109 after" in told


def test_a_row_that_was_changed_is_shown_for_what_it_is() -> None:
    """The digest is of the fields that are shown; a row that says another is warned of and refused."""
    shop = Treasury()
    honest = shop.propose()
    changed = replace(honest, intent=replace(honest.intent, amount=2 * ETHER))
    seen = reviewing.review(shop.store, shop.kernel, changed, None, shop.now)
    assert seen.digest != honest.digest
    assert {refusal.rule for refusal in seen.against} == {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}
    told = "\n".join(reviewing.words(shop.kernel, seen, shop.now))
    assert "WARNING       approves_another_digest" in told
    assert "coverage      UNKNOWN" in told


def test_policy_that_goes_by_itself_and_that_denies() -> None:
    """Both are said in plain words."""
    shop = Treasury(kernel=treasury.kernel(answers(Outcome.AUTOMATIC)))
    transfer = shop.propose()
    assert "lets it go by itself (P01)" in read(shop, transfer)
    shop.kernel = treasury.kernel(answers(Outcome.DENY))
    assert "policy        DENIES: D01" in read(shop, transfer)
    shop.kernel = treasury.kernel(prices=treasury.FakePrices(down=True))
    assert "policy        cannot be evaluated now" in read(shop, transfer)


def test_find_by_id_or_digest() -> None:
    """Either names it; anything else is no transfer."""
    shop = Treasury()
    transfer = shop.propose()
    for named in (transfer.intent.id, transfer.digest.hex(), "0x" + transfer.digest.hex()):
        assert reviewing.find(shop.store, named) == shop.get(transfer)
    with pytest.raises(Refused) as caught:
        reviewing.find(shop.store, "nothing")
    assert rules_of(caught.value) == {Rule.UNKNOWN_TRANSFER}


# the commands


@dataclass
class Desk:
    """A treasury behind the commands, and a folder with keystores."""

    shop: Treasury
    folder: Path

    def run(
        self, which: Any, *arguments: str, who: str = "ana", answer: str = "y\n"
    ) -> tuple[int, str, BaseException | None]:
        """Run a command with a person's key; exit code, output, exception."""
        path = self.folder / f"{who}.json"
        if not path.exists():
            body = Account.encrypt(sha256(who.encode()).digest(), "pw", iterations=4096)
            path.write_text(json.dumps(body, default=str))
        (self.folder / "password").write_text("pw\n")
        key = [] if which is transfers_app else ["--key", str(path), "--password-file", str(self.folder / "password")]
        result = CliRunner().invoke(which, [*arguments, *key, "--home", str(self.folder)], input=answer)
        return result.exit_code, result.output, result.exception


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Commands that open the treasury in memory instead of a home folder."""
    shop = Treasury()

    class Reader:
        """Gives the treasury's kernel."""

        def __init__(self, _: object) -> None:
            self.clock = lambda: shop.now

        def __call__(self) -> Kernel:
            return shop.kernel

    class Silent:
        """An attestor that does not answer."""

        def statement(self) -> object:
            raise Unavailable("attestor", "no answer")

    class Opened:
        """What the commands use of a deployment."""

        store, settings = shop.store, None

        class bundle:  # noqa: N801
            """Its registry."""

            assets = shop.kernel.assets

    monkeypatch.setattr(bootstrap, "open_deployment", lambda *_, **__: Opened)
    monkeypatch.setattr(working, "KernelReader", Reader)
    monkeypatch.setattr(parts, "attestor", lambda _: Silent())
    return Desk(shop, tmp_path)


def test_approve_shows_asks_and_records(desk: Desk) -> None:
    """Two people with their own keys; the second makes it ready."""
    transfer = desk.shop.propose()
    code, told, _ = desk.run(app, transfer.intent.id)
    assert code == 0, told
    assert "Approve exactly this?" in told
    assert "approved by ana; now PENDING_AUTHORIZATION: 1 of risk" in told
    assert f"0x{transfer.digest.hex()}" in told
    code, told, _ = desk.run(app, transfer.intent.id, who="bo")
    assert "now QUEUED" in told
    assert desk.shop.get(transfer).status is Status.QUEUED


def test_no_is_no(desk: Desk) -> None:
    """Who answers no has approved nothing."""
    transfer = desk.shop.propose()
    code, _, _ = desk.run(app, transfer.intent.id, answer="n\n")
    assert code != 0
    assert not desk.shop.store.read(lambda work: work.transfers.approvals(transfer.digest))


@pytest.mark.parametrize(
    ("who", "rule"),
    [
        pytest.param("mallory", Rule.SIGNER_UNKNOWN, id="a key of nobody"),
        pytest.param("dee", Rule.INITIATOR_APPROVES, id="the initiator"),
    ],
)
def test_who_may_not_approve(desk: Desk, who: str, rule: Rule) -> None:
    """Refused with the rule's name."""
    transfer = desk.shop.propose(inside(Tier.CUSTOMER_COLD), by="dee")
    code, _, error = desk.run(app, transfer.intent.id, who=who)
    assert code != 0
    assert isinstance(error, Refused)
    assert rules_of(error) == {rule}


def test_a_changed_row_cannot_be_approved(desk: Desk) -> None:
    """The command refuses before it asks."""
    transfer = desk.shop.propose()

    def raise_amount(work: Any) -> None:
        rows = work.transfers._state.transfers
        rows[transfer.digest] = replace(transfer, intent=replace(transfer.intent, amount=5))

    desk.shop.store.run(raise_amount)
    code, told, error = desk.run(app, transfer.intent.id)
    assert code != 0
    assert isinstance(error, Refused)
    assert Rule.WRONG_DIGEST in rules_of(error)
    assert "Approve exactly this?" not in told


def test_reject_frees_the_hold(desk: Desk) -> None:
    """One person's no, with its reason, ends it."""
    transfer = desk.shop.propose()
    code, told, _ = desk.run(reject_app, transfer.intent.id, "--reason", "not this one", who="bo")
    assert code == 0, told
    assert desk.shop.get(transfer).status is Status.REJECTED
    assert desk.shop.balance(HELD) == 0


def test_the_initiators_own_no_cancels(desk: Desk) -> None:
    """The same command; another word for it."""
    transfer = desk.shop.propose(inside(Tier.CUSTOMER_COLD), by="dee")
    code, told, _ = desk.run(reject_app, transfer.intent.id, "--reason", "a mistake", who="dee")
    assert code == 0, told
    assert desk.shop.get(transfer).status is Status.CANCELLED


def test_transfers_lists_what_each_waits_for(desk: Desk) -> None:
    """For people, and as JSON; those at their end only when asked."""
    waiting = desk.shop.propose()
    over = desk.shop.propose(proposal(2, expiry=NOW + 10), key="k2", number=2)
    desk.run(reject_app, over.intent.id, "--reason", "no", who="bo")
    code, told, _ = desk.run(transfers_app)
    assert code == 0, told
    assert waiting.intent.id in told
    assert "waits for" in told
    assert "1 transfers" in told
    _, told, _ = desk.run(transfers_app, "--all", "--json")
    assert [row["status"] for row in json.loads(told)] == ["PENDING_AUTHORIZATION", "REJECTED"]


def test_a_payout_that_has_no_permit_yet(desk: Desk) -> None:
    """Nothing to carry and nothing to void; said with the rule."""
    transfer = desk.shop.propose()
    for name in ("export", "draft-void"):
        result = CliRunner().invoke(payout_app, [name, transfer.intent.id, str(desk.folder / "x"), "--home", "x"])
        assert isinstance(result.exception, Refused)
        assert rules_of(result.exception) == {Rule.UNKNOWN_TRANSFER}


def test_draft_sign_and_hand_in_a_void(desk: Desk) -> None:
    """Two people sign the file; the transfers wait for their anchor to die. One person is refused."""
    transfer = desk.shop.approve(desk.shop.propose(), "ana", "bo")
    desk.shop.authorize(transfer)
    file = desk.folder / "void.json"
    told = CliRunner().invoke(payout_app, ["draft-void", transfer.intent.id, str(file), "--home", "x"])
    assert told.exit_code == 0, told.output
    genesis = ("--genesis", "0x" + world().domain.genesis.hex())
    for who, code in (("ana", 1), ("bo", 0)):
        assert desk.run(sign_app, str(file), *genesis, who=who)[0] == 0
        handed = CliRunner().invoke(payout_app, ["void", str(file), "--home", "x"])
        assert (handed.exit_code != 0) == (code != 0), handed.output
    assert desk.shop.get(transfer).status is Status.CANCELLING
