# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead sign` and `bulkhead roster`: what a person reads is what is signed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from custody.commands.init import roster_app
from custody.commands.sign import app
from custody.keyfiles import make_keystore
from custody.rules.governance import PolicyActivation
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32, Domain
from tests.vectors.examples import EXAMPLES

GENESIS = b"\x07" * 32
ACTIVATION = PolicyActivation(b"\x01" * 32, ZERO32, ZERO32, "gil", 5)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """An activation that nobody has signed."""
    path = tmp_path / "activation.json"
    path.write_text(json.dumps(Signed(ACTIVATION, ()).to_json()))
    make_keystore(tmp_path / "ana.json", "pw", 4096)
    (tmp_path / "password").write_text("pw\n")
    return path


def run(document: Path, *more: str, answer: str = "y\n") -> tuple[int, str]:
    """Run the command with ana's key."""
    folder = document.parent
    arguments = [str(document), "--key", str(folder / "ana.json"), "--password-file", str(folder / "password"), *more]
    result = CliRunner().invoke(app, arguments, input=answer)
    return result.exit_code, result.output


def test_signs_what_it_shows(document: Path) -> None:
    """Every field in full, the digest recomputed from them, and a signature over exactly that."""
    code, told = run(document, "--genesis", "0x" + GENESIS.hex())
    assert code == 0, told
    digest = Domain(GENESIS).digest(ACTIVATION)
    for shown in ("bundle: 0x" + "01" * 32, "author: gil", "not before: 5", f"digest   0x{digest.hex()}"):
        assert shown in told
    signed = Signed.from_json(PolicyActivation, json.loads(document.read_text()))
    assert len(signed.signers(Domain(GENESIS))) == 1


def test_no_is_no(document: Path) -> None:
    """The file stays as it was."""
    before = document.read_bytes()
    code, _ = run(document, "--genesis", "0x" + GENESIS.hex(), answer="n\n")
    assert code != 0
    assert document.read_bytes() == before


def test_another_genesis_signs_something_else(document: Path) -> None:
    """Signed for one deployment, it means nothing in another."""
    run(document, "--genesis", "0x" + GENESIS.hex())
    signed = Signed.from_json(PolicyActivation, json.loads(document.read_text()))
    assert signed.signers(Domain(b"\x08" * 32)) == frozenset()


def test_roster_draft_and_show(tmp_path: Path) -> None:
    """A version is checked before it becomes a document; `show` names who is missing."""
    version = next(m for m in EXAMPLES.values() if isinstance(m, RosterVersion))
    source, target = tmp_path / "fields.json", tmp_path / "roster.json"
    source.write_text(json.dumps(version.to_json()))
    result = CliRunner().invoke(roster_app, ["draft", str(source), str(target)])
    if result.exit_code == 0:
        shown = CliRunner().invoke(roster_app, ["show", str(target)]).output
        assert "missing" in shown
        assert "attestor" in shown
    else:
        assert result.exception is not None
