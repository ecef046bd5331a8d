# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy …` as a reviewer runs it: exit 0 fine, 1 a finding, 2 invalid; for people and as JSON."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from custody.cli import main
from tests.fakes.trust import roster
from tests.transcripts import ROOT, renewed
from tests.unit.shipped import SHIPPED

TRANSFER: Final = """from: customer_hot
to: customer_withdrawal
owner: the_customer
purpose: withdrawal
role: customer
asset: BTC
amount: 0.5 BTC
usd: 30,000 USD
dest_age: 2d
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped bundle to change."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and everything printed."""
    try:
        code = main(["policy", *map(str, words)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr()
    return code, told.out + told.err


def change(folder: Path, file: str, old: str, new: str) -> Path:
    """Replace one text of one file."""
    path = folder / file
    text = path.read_text(encoding="ascii")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="ascii")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("check",), "27 rules, 12 claims, read and whole", id="check"),
        pytest.param(("fmt", "--check"), "laid out in the one way", id="fmt"),
        pytest.param(("test", "--coverage"), "27 of 27 rules match", id="test"),
        pytest.param(("lint",), "no rule and no limit is idle", id="lint"),
        pytest.param(
            ("docs",), "| customer_hot | customer_withdrawal | withdrawal | customer | 25,000.000001 |", id="docs"
        ),
        pytest.param(("diff", SHIPPED), "verdict: same", id="diff"),
    ],
)
def test_the_shipped_bundle_is_the_default(
    capsys: pytest.CaptureFixture[str], words: tuple[object, ...], said: str
) -> None:
    """Every command without a folder reads it, and has nothing against it."""
    code, told = run(capsys, *words)
    assert code == 0, told
    assert said in told


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        pytest.param("rules.yaml", "usd: at most 25,000 USD", "usd: at most 25,000", "rules.yaml:", id="no unit"),
        pytest.param("rules.yaml", "delay: 24h", "delay: 22:00", "rules.yaml:", id="a word other readers type"),
        pytest.param(
            "rules.yaml", "related_entity: true", "related_entities: true", "related_entity", id="a suggestion"
        ),
        pytest.param("limits.yaml", "  BTC: 0.25 BTC\n", "", "auto_withdrawal", id="an asset without a limit"),
        pytest.param("claims.yaml", "then: denied", "then: deny", "claims.yaml:", id="a claim that claims nothing"),
        pytest.param(
            "governance.yaml", "delay: 48h", "delay: 1h", "governance.yaml:", id="loosening as easy as tightening"
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], folder: Path, file: str, old: str, new: str, where: str
) -> None:
    """Exit 2, and every command that reads the bundle says the same."""
    change(folder, file, old, new)
    for command in ("check", "prove", "lint", "docs"):
        code, told = run(capsys, command, folder)
        assert code == 2, told
        assert where in told
        assert re.search(rf"{file}:\d+", told)


def test_check_with_a_roster(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    """A quorum that the people there are can never reach is a finding, with the transfer that would be stuck."""
    file = tmp_path / "roster.json"
    file.write_text(json.dumps(roster().version.to_json()), encoding="ascii")
    code, told = run(capsys, "check", folder, "--roster", file)
    assert code in (0, 1)
    change(
        folder, "rules.yaml", "[1 of risk, 1 of compliance, 1 of executive, 1 of board]", "[9 of risk, 1 of astronauts]"
    )
    code, told = run(capsys, "check", folder, "--roster", file)
    assert code == 1
    assert "'astronauts'" in told
    assert "nobody can fill" in told


def test_fmt_changes_layout_and_nothing_else(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Exit 1 with --check; afterwards the file reads the same, has the same hash, and keeps its comments."""
    path = folder / "rules.yaml"
    text = path.read_text(encoding="ascii")
    rough = text.replace('when: {usd: "at least 100,000 USD"}', 'when:   {usd:   "at least 100,000 USD"}')
    assert rough != text
    path.write_text(rough, encoding="ascii")
    code, told = run(capsys, "fmt", folder, "--check")
    assert (code, "rules.yaml is laid out otherwise" in told) == (1, True)
    assert path.read_text(encoding="ascii") == rough
    assert run(capsys, "fmt", folder)[0] == 0
    assert path.read_text(encoding="ascii") == text
    assert run(capsys, "fmt", folder, "--check")[0] == 0


def test_explain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The outcome, each rule that matched with its reason, and of every other the first condition that does not hold."""
    file = tmp_path / "transfer.yaml"
    file.write_text(TRANSFER, encoding="ascii")
    code, told = run(capsys, "explain", file)
    assert code == 0
    assert "REQUIRE: 1 of operations, 1 of risk" in told
    assert "matched P01-customer-withdrawal" in told
    assert "not P01-customer-withdrawal (automatic_when): amount: at most limit auto_withdrawal" in told
    body: dict[str, Any] = json.loads(run(capsys, "explain", file, "--json")[1])
    assert body["facts"]["amount"] == "50000000"
    assert body["decision"]["matched"] == ["P01-customer-withdrawal"]
    file.write_text(TRANSFER.replace("amount: 0.5 BTC", "amount: 0.5"), encoding="ascii")
    code, told = run(capsys, "explain", file)
    assert (code, "transfer.yaml" in told) == (2, True)


def test_cases_that_are_wrong(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """A case says what it wanted and what it got; a rule that no case matches is a finding of --coverage."""
    change(folder, "rules.yaml", "delay: 24h", "delay: 12h")
    code, told = run(capsys, "test", folder)
    assert code == 1
    assert "wanted REQUIRE" in told
    assert "after 12h" in told
    change(folder, "cases.yaml", "owner: another_customer", 'owner: nobody, enrolled: "false"')
    code, told = run(capsys, "test", folder, "--coverage")
    assert "no case matches D07-another-customer" in told


def test_prove_and_diff_show_a_backdoor(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Exit 1, the claim by name, the transfer, and what it is answered; the same as JSON and for a pull request."""
    change(folder, "rules.yaml", "when: {sanctioned: true}", "when: {sanctioned: true, from: [customer_cold]}")
    code, told = run(capsys, "prove", folder)
    assert code == 1
    assert "FAILS  C10-sanctions" in told
    assert "sanctioned: true" in told
    proofs = json.loads(run(capsys, "prove", folder, "--json")[1])["proofs"]
    assert [proof["id"] for proof in proofs if not proof["holds"]] == ["C10-sanctions"]
    code, told = run(capsys, "diff", SHIPPED, folder)
    assert (code, "verdict: weaker" in told) == (1, True)
    assert "before: denied: D01-sanctioned" in told
    code, told = run(capsys, "diff", SHIPPED, folder, "--markdown")
    assert (code, "## Policy: **weaker**" in told) == (1, True)
    report = json.loads(run(capsys, "diff", SHIPPED, folder, "--json")[1])
    assert report["verdict"] == "weaker"
    assert run(capsys, "diff", folder, SHIPPED)[0] == 0


def test_transcripts_are_what_the_commands_print() -> None:
    """The document for reviewers shows no output that its commands do not give (`python -m tests.transcripts FILE --write`)."""
    text = (ROOT / "docs" / "policy-review.md").read_text(encoding="utf-8")
    assert renewed(text) == text
