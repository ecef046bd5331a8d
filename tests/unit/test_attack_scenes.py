# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of the demonstration's attacks: a tool that changes nothing, or puts back half, would prove nothing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest

from custody.chains.evm.leaves import Call, safe_tx
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from devnet.people import SPARE, gather
from devnet.scenes.attacks import refused, rules_of
from devnet.scenes.attacks_payload import calls_of
from devnet.scenes.attacks_rows import altered
from devnet.story import Story
from tests.fakes.attacks import hot

ONE = "0x" + "11" * 20
TWO = "0x" + "22" * 20
SCHEMA = """
CREATE TABLE journal (position INTEGER PRIMARY KEY);
CREATE TABLE rows (name TEXT PRIMARY KEY, units INTEGER);
INSERT INTO journal VALUES (1);
INSERT INTO rows VALUES ('a', 1);
CREATE TRIGGER rows_no_update BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'rows are never changed'); END;
"""


def _refuses() -> None:
    raise Refused([Refusal(Rule.HOLD), Refusal(Rule.STALE)])


def _malformed() -> None:
    raise InvalidInput("row", Rule.ROW_DAMAGED, "9", "1")


@pytest.mark.parametrize(
    ("attempt", "rules", "held"),
    [
        pytest.param(_refuses, {"hold_does_not_stand", "stale"}, True, id="refused, by two rules"),
        pytest.param(_malformed, {"row_damaged"}, False, id="refused by another rule: the claim fails"),
        pytest.param(lambda: None, set(), False, id="taken: the claim fails"),
    ],
)
def test_a_refusal_is_claimed_by_its_rule(attempt: Callable[[], None], rules: set[str], held: bool) -> None:
    """An attack that was taken, or refused for another reason than the one it tests, fails its claim."""
    story = Story(StringIO())
    refused(story, "somebody", "an attack", Rule.HOLD, attempt)
    assert rules == rules_of(attempt)
    assert held == story.all_held


def _silent() -> None:
    raise Unavailable("attestor", "no answer")


def test_silence_is_no_refusal() -> None:
    """Where nobody answers nothing was refused, and the claim fails without ending the demonstration."""
    story = Story(StringIO())
    refused(story, "somebody", "an attack", Rule.HOLD, _silent)
    assert not story.all_held


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([Call("", ONE, 5, b"")], id="alone"),
        pytest.param([Call("", ONE, 5, b""), Call("", TWO, 0, b"\xa9\x05\x9c\xbb" + bytes(64))], id="a batch"),
    ],
)
def test_calls_are_read_as_they_were_built(calls: list[Call]) -> None:
    """What is taken apart and put together again is the same payload: only the lie differs."""
    payload = safe_tx(hot(), 7, calls)
    assert payload == safe_tx(hot(), 7, calls_of(payload))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A journal with an entry, and a guarded row."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(SCHEMA)
    return path


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as opened:
        return [*opened.iterdump()]


def test_an_alteration_is_put_back_whole(database: Path) -> None:
    """Inside, the row is changed and unguarded; afterwards row and trigger are what they were, after an error too."""
    before, inside = _dump(database), list[str]()
    with pytest.raises(ZeroDivisionError), altered(database, lambda db: db.execute("UPDATE rows SET units = 9")):  # type: ignore[arg-type]
        inside = _dump(database)
        raise ZeroDivisionError
    assert (inside != before, _dump(database)) == (True, before)


def test_an_entry_made_meanwhile_is_never_taken_back(database: Path) -> None:
    """The attestor may have vouched for it: better a demonstration that stops than a history that changed."""
    with pytest.raises(AssertionError), altered(database, lambda db: db.execute("INSERT INTO journal VALUES (2)")):  # type: ignore[arg-type]
        pass
    assert 'INSERT INTO "journal" VALUES(2);' in _dump(database)


def test_two_keys_are_still_one_person(tmp_path: Path) -> None:
    """The devnet's second key belongs to a person who has a first one, and is another key."""
    cast = gather(tmp_path)
    for person in SPARE:
        assert len(set(cast.keys(person))) == 2
        assert cast.keys(person)[0] == cast.people[person].key
