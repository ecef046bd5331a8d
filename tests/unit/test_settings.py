# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settings: one file, read whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from custody.rules.errors import InvalidInput
from custody.settings import FILE, NodeSettings, PartSettings, Settings, home_folder


def settings(home: Path) -> Settings:
    """Everything filled in."""
    part = PartSettings("/run/s", "/etc/approle.json")
    node = NodeSettings("http://127.0.0.1:1", "/cookie")
    chain = "eip155:31338"
    return Settings(
        home, "sqlite:///x", "/policy", {chain: node}, {chain: (node, node)}, {"hot-1": part}, part, part, {chain: {}}
    )


def test_round_trip(tmp_path: Path) -> None:
    """Saved and read again it is the same, and nobody else can read it."""
    settings(tmp_path).save()
    assert Settings.load(tmp_path) == settings(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_no_file(tmp_path: Path) -> None:
    """A folder that is no home says what would make one."""
    with pytest.raises(InvalidInput) as caught:
        Settings.load(tmp_path)
    assert "devnet up" in caught.value.want


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: b.pop("database"), id="a key missing"),
        pytest.param(lambda b: b.update(nodes=[]), id="a list for an object"),
        pytest.param(lambda b: b["attestor"].update(key="secret"), id="a key too many"),
        pytest.param(lambda b: b.update(seats={"hot-1": None}), id="nothing for a part"),
    ],
)
def test_not_whole(tmp_path: Path, change: Any) -> None:
    """Half a file is no file."""
    settings(tmp_path).save()
    body = json.loads((tmp_path / FILE).read_text())
    change(body)
    (tmp_path / FILE).write_text(json.dumps(body))
    with pytest.raises(InvalidInput):
        Settings.load(tmp_path)


def test_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is given, else the variable, else the folder of here."""
    monkeypatch.setenv("BULKHEAD_HOME", str(tmp_path / "a"))
    assert home_folder(str(tmp_path / "b")) == tmp_path / "b"
    assert home_folder(None) == tmp_path / "a"
    monkeypatch.delenv("BULKHEAD_HOME")
    monkeypatch.chdir(tmp_path)
    assert home_folder(None) == tmp_path / ".bulkhead"
