# SPDX-License-Identifier: AGPL-3.0-or-later
"""What commands read from files and from what people type."""

import json
from pathlib import Path

import pytest

from custody.commands.common import read_hash, read_signed_as
from custody.rules.errors import InvalidInput
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32

ACTIVATION = PolicyActivation(b"\x01" * 32, ZERO32, ZERO32, "gil", 5)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A policy's activation in a file."""
    path = tmp_path / "document.json"
    path.write_text(json.dumps(Signed(ACTIVATION, ()).to_json()))
    return path


def test_a_document_of_the_kind_wanted(document: Path) -> None:
    """As it was written."""
    assert read_signed_as(document, PolicyActivation) == Signed(ACTIVATION, ())


@pytest.mark.parametrize("kind", [Freeze, Unfreeze])
def test_a_document_of_another_kind(document: Path, kind: type[Freeze] | type[Unfreeze]) -> None:
    """The error names the file, what is in it, and what was wanted."""
    with pytest.raises(InvalidInput) as caught:
        read_signed_as(document, kind)
    error = caught.value
    assert (error.field, error.rule, error.got) == ("document.json", Rule.MALFORMED, "PolicyActivation")
    assert kind.__name__ in error.want


@pytest.mark.parametrize("text", ["ab" * 32, "0x" + "ab" * 32, "0x" + "AB" * 32])
def test_a_hash(text: str) -> None:
    """With 0x or without."""
    assert read_hash(text, "freeze") == b"\xab" * 32


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("0x", id="no digit"),
        pytest.param("ab" * 31, id="too short"),
        pytest.param("ab" * 33, id="too long"),
        pytest.param("0x0x" + "ab" * 32, id="0x twice"),
        pytest.param("xy" * 32, id="no hex"),
        pytest.param("\u0661" * 64, id="digits of another script"),
    ],
)
def test_no_hash(text: str) -> None:
    """Told under the field's name."""
    with pytest.raises(InvalidInput) as caught:
        read_hash(text, "genesis")
    assert (caught.value.field, caught.value.rule) == ("genesis", Rule.MALFORMED)
