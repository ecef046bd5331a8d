# SPDX-License-Identifier: AGPL-3.0-or-later
"""Key files: made once, opened with their password, and nothing else opens them."""

from pathlib import Path

import pytest

from custody.keyfiles import Ed25519Signer, Secp256k1Signer, make_keystore, make_pem, open_key
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

DIGEST = bytes(range(32))


def test_keystore(tmp_path: Path) -> None:
    """A keystore opens to the key it was made with, and its signatures verify."""
    made = make_keystore(tmp_path / "ana.json", "right", 4096)
    opened = open_key(tmp_path / "ana.json", "right")
    assert isinstance(opened, Secp256k1Signer)
    assert opened.key == made.key
    assert opened.sign(DIGEST).is_over(DIGEST)
    assert not opened.sign(DIGEST).is_over(DIGEST[::-1])


def test_pem(tmp_path: Path) -> None:
    """So does a program's PEM file."""
    made = make_pem(tmp_path / "backend.pem", "right")
    opened = open_key(tmp_path / "backend.pem", "right")
    assert isinstance(opened, Ed25519Signer)
    assert opened.key == made.key
    assert opened.sign(DIGEST).is_over(DIGEST)


def test_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    """A key that is there stays there."""
    make_keystore(tmp_path / "keys" / "ana.json", "right", 4096)
    path = tmp_path / "keys" / "ana.json"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    for make in (make_keystore, make_pem):
        with pytest.raises(InvalidInput) as caught:
            make(path, "right")
        assert caught.value.rule == Rule.ALREADY_EXISTS
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "body"),
    [
        pytest.param("none.json", None, id="no file"),
        pytest.param("half.json", b'{"crypto":', id="half a keystore"),
        pytest.param("other.json", b'{"a": 1}', id="JSON of another kind"),
        pytest.param("noise.pem", b"noise", id="noise"),
        pytest.param("empty.pem", b"", id="empty"),
    ],
)
def test_not_a_key(tmp_path: Path, name: str, body: bytes | None) -> None:
    """The error names the file and says what would be right."""
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(InvalidInput) as caught:
        open_key(tmp_path / name, "right")
    assert name in caught.value.got


@pytest.mark.parametrize("make", [lambda p: make_keystore(p, "right", 4096), lambda p: make_pem(p, "right")])
def test_wrong_password(tmp_path: Path, make: object) -> None:
    """Refused, and the password is in no message."""
    assert callable(make)
    make(tmp_path / "key")
    with pytest.raises(InvalidInput) as caught:
        open_key(tmp_path / "key", "wrong-secret")
    assert "wrong-secret" not in str(caught.value)
