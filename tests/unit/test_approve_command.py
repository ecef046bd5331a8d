# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead approve | reject | transfers`: a person reads what would move, worked out again, and signs exactly that."""

import json
from collections.abc import Callable
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
from custody.flows import proposals, review_words, reviewing
from custody.flows.kernel import Kernel
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import Freeze
from custody.rules.refusals import Refused, Rule
from custody.rules.requirement import Outcome, Requirement
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Tier
from custody.rules.words import lines as field_lines
from tests.fakes import treasury
from tests.fakes.seat import BITCOIN, EVM, NOW, rules_of
from tests.fakes.treasury import HELD, Treasury, inside, proposal
from tests.fakes.trust import PAYEE, STRANGER, answers, world

ETHER = 10**18


def read(shop: Treasury, transfer: Transfer, said: Any = None) -> str:
    """What a person would read."""
    seen = reviewing.review(shop.store, shop.kernel, transfer, said or treasury.statement(shop.now), shop.now)
    return "\n".join(review_words.tell(shop.kernel, seen, shop.now))


def test_words_say_everything() -> None:
    """Amount, value, tiers, owner, who asked, which rules ask for whom, who said yes and who is missing, coverage, every field."""
    shop = Treasury()
    transfer = shop.approve(shop.propose(), "ana")
    told = read(shop, transfer)
    for wanted in (
        f"TRANSFER {transfer.intent.id}",
        "waits for    1 of risk",
        "amount       1 ETH   (1000000000000000000 base units)",
        "worth        2,000.00 USD at the highest fresh price (2,000.00 USD when it was proposed)",
        f"from         tier customer_hot: our wallet 'customer_hot/{EVM.name}' on {EVM.name}",
        f"               {world().certificate(Tier.CUSTOMER_HOT, EVM).safe[0].address}",
        "3 of its 4 seats sign",
        "to           OUTSIDE: customer_withdrawal address of customer:ada",
        "enrolled since 2027-01-13 08:00:00 UTC (2 d), until 2028-01-15 08:00:00 UTC",
        f"               {PAYEE[EVM.name]}",
        "debits       customer:ada   (purpose: withdrawal)",
        "proposed by  backend, a program with the role customer",
        "reference    order 1",
        "until 2027-01-17 08:00:00 UTC (2 d left)",
        "policy       asks for 1 of operations, 1 of risk, each a different person",
        "by rule    P01: 1 of operations, 1 of risk",
        '"Two desks look at it."',
        "2,000.00 USD of customer:ada in 24 h",
        "2,000.00 USD out of this wallet in 1 h",
        "approved by  ana (operations, treasury)",
        "still needed 1 of risk",
        "none out of the wallet: the relayer pays the gas",
        f"digest       0x{transfer.digest.hex()}",
    ):
        assert wanted in told, told
    for line in field_lines(transfer.intent):
        assert line in told
    assert "WARNING" not in told


def test_words_name_both_tiers_of_a_move() -> None:
    """A move inside says from which tier to which, and a time-lock until when."""
    policy = answers(Outcome.REQUIRE, Requirement((("operations", 1),), delay=3600))
    shop = Treasury(kernel=treasury.kernel(policy))
    told = read(shop, shop.propose(inside(Tier.CUSTOMER_COLD), by="desk"))
    assert "from         tier customer_hot: our wallet" in told
    assert "to           tier customer_cold: our wallet" in told
    assert "time-lock    1 h from the proposal on, until 2027-01-15 09:00:00 UTC (1 h left)" in told


def test_a_fee_out_of_the_wallet() -> None:
    """On Bitcoin the wallet pays: at most so much, and coverage counts it even where coins stay inside."""
    shop = Treasury()
    sweep = inside(Tier.CUSTOMER_COLD, BITCOIN, amount=10**8)
    said = treasury.statement(shop.now, reserves=11 * 10**8, available=10 * 10**8)
    told = read(shop, shop.propose(sweep, by="desk"), said)
    assert "network fee  at most 0.0002 BTC   (20000 base units), paid by the wallet" in told
    assert "surplus  1 BTC before, 0.9998 BTC after" in told
    assert "reserves 11 BTC before, 10.9998 BTC after" in told


@pytest.mark.parametrize(
    ("message", "by", "wanted"),
    [
        pytest.param(
            proposal(),
            "backend",
            ("surplus  10 ETH before, 10 ETH after", "reserves 110 ETH before, 109", "owed     100 ETH before, 99"),
            id="a withdrawal takes what is owed along",
        ),
        pytest.param(
            inside(Tier.OPERATIONAL, purpose="fee_sweep"),
            "finance",
            ("surplus  10 ETH before, 9 ETH after", "reserves 110 ETH before, 109", "owed     100 ETH before, 100"),
            id="a fee sweep does not",
        ),
        pytest.param(
            inside(Tier.CUSTOMER_COLD),
            "desk",
            ("surplus  10 ETH before, 10 ETH after", "reserves 110 ETH before, 110"),
            id="a move inside takes nothing",
        ),
        pytest.param(
            inside(Tier.CUSTOMER_HOT, purpose="make_whole"),
            "finance",
            ("surplus  10 ETH before, 11 ETH after", "reserves 110 ETH before, 111"),
            id="the company makes whole",
        ),
        pytest.param(
            proposal(account="company", purpose="vendor_payment"),
            "finance",
            ("nothing of customers' changes",),
            id="a vendor is paid by the company",
        ),
    ],
)
def test_coverage_before_and_after(message: Any, by: str, wanted: tuple[str, ...]) -> None:
    """By the attestor's newest word."""
    shop = Treasury()
    said = treasury.statement(shop.now, reserves=110 * ETHER, available=100 * ETHER)
    told = read(shop, shop.propose(message, by=by), said)
    for line in wanted:
        assert line in told, told


def test_a_shortfall_is_said() -> None:
    """One wei less than is owed."""
    shop = Treasury()
    told = read(shop, shop.propose(), treasury.statement(shop.now, reserves=100 * ETHER - 1, available=100 * ETHER))
    assert "surplus  -0.000000000000000001 ETH before, -0.000000000000000001 ETH after   SHORTFALL" in told


def test_a_forged_statement_is_none() -> None:
    """Numbers that the attestor did not sign are not shown."""
    shop = Treasury()
    told = read(shop, shop.propose(), treasury.statement(shop.now, attestor="backend"))
    assert "UNKNOWN      the attestor is silent" in told
    assert "signature_invalid" in told
    assert "surplus" not in told


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        pytest.param({"amount": 2 * ETHER}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}, id="amount"),
        pytest.param({"destination": STRANGER}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}, id="destination"),
        pytest.param({"account": "customer:bo"}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}, id="account"),
        pytest.param({"purpose": "vendor_payment"}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}, id="purpose"),
        pytest.param({"expiry": NOW + 10**8}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH}, id="expiry"),
        pytest.param({"maximum_fee": 10**18}, {Rule.WRONG_DIGEST, Rule.MAXIMUM_FEE}, id="maximum fee"),
        pytest.param({"wallet": b"\1" * 32}, {Rule.WRONG_DIGEST, Rule.WRONG_WALLET}, id="wallet"),
        pytest.param({"initiator": "desk"}, {Rule.WRONG_DIGEST, Rule.SIGNER_UNKNOWN}, id="initiator"),
        pytest.param({"enrolment": b"\1" * 32}, {Rule.WRONG_DIGEST, Rule.ENROLMENT}, id="enrolment"),
        pytest.param({"id": "another"}, {Rule.WRONG_DIGEST}, id="id"),
    ],
)
def test_a_row_that_was_changed_is_shown_for_what_it_is(changes: dict[str, Any], rules: set[Rule]) -> None:
    """The digest is of the fields that are shown; a row that says another is warned of and refused."""
    shop = Treasury()
    honest = shop.propose()
    changed = replace(honest, intent=replace(honest.intent, **changes))
    seen = reviewing.review(shop.store, shop.kernel, changed, None, shop.now)
    assert seen.digest != honest.digest
    assert {refusal.rule for refusal in seen.against} == rules
    told = "\n".join(review_words.tell(shop.kernel, seen, shop.now))
    assert "WARNING: this must not be approved" in told
    assert "approves_another_digest" in told
    assert "UNKNOWN      the attestor is silent" in told


def test_a_terminal_is_not_the_databases() -> None:
    """Escape sequences in a row paint over no warning, and nothing turns an address around."""
    shop = Treasury()
    honest = shop.propose()
    evil = "\x1b[2J\x1b[1;1H all is well \u202e\n  still needed nobody"
    changed = replace(honest, intent=replace(honest.intent, account=evil, id=evil, initiator=evil), waiting_for=evil)
    seen = reviewing.review(shop.store, shop.kernel, changed, None, shop.now)
    for line in (*review_words.tell(shop.kernel, seen, shop.now), *review_words.history(seen)):
        assert line.isprintable(), repr(line)


def test_policy_that_goes_by_itself_and_that_denies() -> None:
    """Both are said in plain words; without prices nothing is."""
    shop = Treasury(kernel=treasury.kernel(answers(Outcome.AUTOMATIC)))
    transfer = shop.propose()
    told = read(shop, transfer)
    assert "lets it go by itself, inside the caps that each seat counts for itself" in told
    assert "still needed nobody, as long as the seats' caps allow it" in told
    shop.kernel = treasury.kernel(answers(Outcome.DENY))
    assert "policy       DENIES: D01" in read(shop, transfer)
    shop.kernel = treasury.kernel(prices=treasury.FakePrices(down=True))
    told = read(shop, transfer)
    assert "policy       CANNOT BE EVALUATED NOW" in told
    assert "worth        UNKNOWN: fewer than two fresh prices" in told


def test_a_transfer_at_its_end_is_worth_what_it_was() -> None:
    """Nobody prices it again, and nothing is said of prices; one that no longer has a way is not told to lack prices either."""
    shop = Treasury()
    assert "\n  worth        2,000.00 USD when it was proposed\n" in read(shop, _rejected(shop))
    lost = shop.propose(proposal(2), key="k2", number=2)
    shop.kernel = treasury.kernel(prices=treasury.FakePrices(down=True))
    assert "UNKNOWN: fewer than two fresh prices (2,000.00 USD" in read(shop, lost)


def test_a_freeze_is_said() -> None:
    """Whose freeze it is, until when and why; a person may still say yes."""
    shop = Treasury()
    transfer = shop.propose()
    freeze = Freeze("customer:ada", "odd\x1bpayouts", NOW - 10, NOW + 3600)
    shop.kernel = treasury.kernel(freezes=(freeze,), frozen_by={freeze.struct_hash: "bo"})
    told = read(shop, transfer)
    assert "FROZEN       customer:ada by bo, until 2027-01-15 09:00:00 UTC: odd\\x1bpayouts" in told
    assert "WARNING" not in told


def test_who_is_not_counted_is_said() -> None:
    """The initiator's own yes, planted in the table."""
    shop = Treasury()
    transfer = shop.propose(inside(Tier.CUSTOMER_COLD), by="dee")
    shop.store.run(lambda work: work.transfers.approve(treasury.approval(transfer, "dee"), NOW))
    told = read(shop, transfer)
    assert "approved by  nobody yet" in told
    assert "not counted: initiator_approves_own_transfer(person=dee)" in told


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
    assert "A YES MEANS" in told
    assert f"exactly 1 ETH to {PAYEE[EVM.name]}" in told
    assert "approved by ana; now PENDING_AUTHORIZATION, waits for 1 of risk" in told
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


def test_yes_for_scripts(desk: Desk) -> None:
    """`--yes` shows everything and does not ask; everything else is as strict."""
    transfer = desk.shop.propose()
    code, told, _ = desk.run(app, transfer.intent.id, "--yes", answer="")
    assert code == 0, told
    assert "A YES MEANS" in told
    assert "Approve exactly this?" not in told
    code, _, error = desk.run(app, transfer.intent.id, "--yes", who="mallory", answer="")
    assert code != 0
    assert isinstance(error, Refused)


def _rejected(shop: Treasury) -> Transfer:
    made = shop.propose()
    return proposals.reject(shop.store, shop.kernel, treasury.no(made, "bo"), NOW)


def _denied(shop: Treasury) -> Transfer:
    shop.kernel = treasury.kernel(answers(Outcome.DENY))
    made = shop.propose()
    shop.kernel = treasury.kernel()
    return made


def _expired(shop: Treasury) -> Transfer:
    made = shop.propose(proposal(expiry=NOW + 5))
    shop.now = NOW + 5
    return made


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        pytest.param(_rejected, Rule.ILLEGAL_MOVE, id="rejected"),
        pytest.param(_denied, Rule.ILLEGAL_MOVE, id="denied by policy when it was proposed"),
        pytest.param(_expired, Rule.EXPIRED, id="expired"),
    ],
)
def test_what_takes_no_approval_any_more(desk: Desk, make: Callable[[Treasury], Transfer], rule: Rule) -> None:
    """Refused before anybody types a password."""
    made = make(desk.shop)
    code, told, error = desk.run(app, made.intent.id)
    assert code != 0
    assert isinstance(error, Refused)
    assert rules_of(error) == {rule}
    assert "A YES MEANS" not in told


def test_a_wrong_password(desk: Desk) -> None:
    """Nothing is signed, and the file is named."""
    transfer = desk.shop.propose()
    desk.run(app, transfer.intent.id, answer="n\n")
    (desk.folder / "other").write_text("not it")
    key = ("--key", str(desk.folder / "ana.json"), "--password-file", str(desk.folder / "other"))
    result = CliRunner().invoke(app, [transfer.intent.id, *key, "--yes", "--home", "x"])
    assert isinstance(result.exception, InvalidInput)
    assert not desk.shop.store.read(lambda work: work.transfers.approvals(transfer.digest))


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


def test_a_damaged_row_hides_no_other(desk: Desk) -> None:
    """It is told with what is wrong; the others are listed."""
    bad, good = (desk.shop.propose(proposal(n), key=f"k{n}", number=n) for n in (1, 2))
    rows: Any = desk.shop.store.run(lambda work: work.transfers)
    rows._state.damaged.add(bad.digest)
    code, told, _ = desk.run(transfers_app)
    assert code == 0
    assert f"0x{bad.digest.hex()}  is damaged" in told
    assert good.intent.id in told
    assert bad.intent.id not in told
    _, told, _ = desk.run(transfers_app, "--json")
    assert [row["digest"] for row in json.loads(told)] == ["0x" + t.digest.hex() for t in (bad, good)]


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
    assert f"1 ETH, withdrawal of customer:ada, asked for by backend\n  to {PAYEE[EVM.name]} on {EVM.name}\n" in told
    assert "waits for 1 of operations, 1 of risk" in told
    _, told, _ = desk.run(transfers_app, "--all", "--json")
    assert [row["status"] for row in json.loads(told)] == ["PENDING_AUTHORIZATION", "REJECTED"]


def test_show_tells_one_whole(desk: Desk) -> None:
    """The same words as before an approval, and its history with the reasons; at its end too."""
    transfer = desk.shop.propose()
    code, told, _ = desk.run(transfers_app, "show", transfer.intent.id)
    assert code == 0, told
    assert f"digest       0x{transfer.digest.hex()}" in told
    assert "still needed 1 of operations, 1 of risk" in told
    desk.run(reject_app, transfer.intent.id, "--reason", "not this one", who="bo")
    code, told, _ = desk.run(transfers_app, "show", transfer.digest.hex())
    assert code == 0, told
    assert "status       REJECTED (REJECTED_BY_USER), since 2027-01-15 08:00:00 UTC" in told
    assert "REJECTED (REJECTED_BY_USER)  bo: not this one" in told
    assert "WHO HAS TO AGREE" not in told


def test_a_reason_that_paints(desk: Desk) -> None:
    """A reason is signed, kept and read by others: printable, and not empty."""
    transfer = desk.shop.propose()
    for reason in ("", "\x1b[2J", "two\nlines", "x" * 401, "a\x00b", "\u202eabc"):
        code, _, error = desk.run(reject_app, transfer.intent.id, "--reason", reason, who="bo")
        assert code != 0
        assert isinstance(error, Refused)
        assert rules_of(error) == {Rule.MALFORMED}
    assert desk.shop.get(transfer).status is Status.PENDING_AUTHORIZATION


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
