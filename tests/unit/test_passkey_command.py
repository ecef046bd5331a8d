# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead passkey show | add`: an enrolment is verified again, and goes into a draft as what it is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from custody.commands.passkey import app
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from tests.fakes.authenticator import ORIGIN, Authenticator, Lies
from tests.unit.signers import ROSTER, VERSION_1

CHALLENGE: Final = bytes(range(32))
BO: Final = Authenticator("bo's laptop")


def enrolment(folder: Path, person: str = "bo", lies: Lies | None = None) -> Path:
    """A page's file."""
    body = {
        "type": "PasskeyEnrolment",
        "person": person,
        "origin": ORIGIN,
        "challenge": "0x" + CHALLENGE.hex(),
        "response": BO.registration(CHALLENGE, lies or Lies()),
    }
    path = folder / "enrolment.json"
    path.write_text(json.dumps(body))
    return path


def draft(folder: Path, **changes: Any) -> Path:
    """A next version that somebody drafted already."""
    version = replace(VERSION_1, version=2, previous=ROSTER.version.struct_hash, **changes)
    path = folder / "draft.json"
    path.write_text(json.dumps(Signed(version, ()).to_json()))
    return path


def run(*words: object) -> tuple[str, BaseException | None]:
    """What it printed, and what it raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    raised = result.exception
    return result.output, None if isinstance(raised, SystemExit) else raised


def test_show_says_what_is_enrolled(tmp_path: Path) -> None:
    """The key whole, the page, and that it shows nothing."""
    told, raised = run("show", enrolment(tmp_path))
    assert raised is None
    assert all(part in told for part in (str(BO.key), ORIGIN, BO.credential_id.hex(), "displays     no"))


def test_add_writes_a_draft_and_nothing_else(tmp_path: Path) -> None:
    """The person's new key, not displaying, beside the old ones; everybody else as they were; no signature."""
    target = tmp_path / "roster.json"
    _, raised = run("add", enrolment(tmp_path), target, "--draft", draft(tmp_path))
    assert raised is None
    signed = Signed.from_json(RosterVersion, json.loads(target.read_text()))
    old, new = ({p.id: p for p in version.people} for version in (VERSION_1, signed.message))
    assert signed.signatures == ()
    assert new["bo"] == replace(old["bo"], keys=(*old["bo"].keys, BO.key), displays=(*old["bo"].displays, False))
    assert {n: p for n, p in new.items() if n != "bo"} == {n: p for n, p in old.items() if n != "bo"}


@pytest.mark.parametrize(
    ("person", "lies", "rule"),
    [
        pytest.param("mallory", Lies(), Rule.SIGNER_UNKNOWN, id="nobody of the roster"),
        pytest.param("bo", Lies(flags=1 | 64), Rule.MALFORMED, id="an answer that does not verify"),
        pytest.param("bo", Lies(origin="https://evil.example"), Rule.MALFORMED, id="made on another page"),
    ],
)
def test_what_is_not_added(tmp_path: Path, person: str, lies: Lies, rule: Rule) -> None:
    """No file is written."""
    target = tmp_path / "roster.json"
    _, raised = run("add", enrolment(tmp_path, person, lies), target, "--draft", draft(tmp_path))
    assert isinstance(raised, InvalidInput)
    assert (raised.rule, target.exists()) == (rule, False)


def test_one_passkey_is_added_once(tmp_path: Path) -> None:
    """A second time, or for somebody else, the version would name one key twice."""
    target = tmp_path / "roster.json"
    run("add", enrolment(tmp_path), target, "--draft", draft(tmp_path))
    for person in ("bo", "cy"):
        _, raised = run("add", enrolment(tmp_path, person), tmp_path / "again.json", "--draft", target)
        assert isinstance(raised, Refused)
        assert {refusal.rule for refusal in raised.refusals} == {Rule.KEY_REUSED}
