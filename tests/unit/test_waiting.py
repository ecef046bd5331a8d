# SPDX-License-Identifier: AGPL-3.0-or-later
"""For whom or what a transfer waits, in words; and times, lengths of time and text as a person reads them."""

import pytest

from custody.rules import words
from custody.rules.refusals import Refusal, Rule
from custody.rules.waiting import people_missing, waits_for

SLOTS = Refusal(Rule.QUORUM_NOT_REACHED, approved=["ana"], people=3, missing=["1 of risk", "2 of treasury"])
HEADS = Refusal(Rule.QUORUM_NOT_REACHED, approved=["ana", "bo"], people=3, missing=[])
ALONE = Refusal(Rule.QUORUM_NOT_REACHED, approved=["ana"], people=3, missing=[])
SHOWN = Refusal(Rule.DISPLAYING_MISSING, displaying=[], needed=1, missing=1, of=["operations", "risk"])
SHORT = Refusal(Rule.INSUFFICIENT_BALANCE, asset="ETH", balance=1)


@pytest.mark.parametrize(
    ("refusals", "told"),
    [
        pytest.param([SLOTS], "1 of risk, 2 of treasury (quorum_not_reached)", id="open slots"),
        pytest.param([HEADS], "1 more person of these groups (quorum_not_reached)", id="one person too few"),
        pytest.param([ALONE], "2 more people of these groups (quorum_not_reached)", id="two people too few"),
        pytest.param(
            [Refusal(Rule.DELAY, waited=1, needed=3600, until=1_800_000_000)],
            "the time-lock, until 2027-01-15 08:00:00 UTC (delay_not_over)",
            id="time-lock",
        ),
        pytest.param(
            [Refusal(Rule.TOO_EARLY, not_before=1_800_000_000, now=1)],
            "its time, from 2027-01-15 08:00:00 UTC on (not_yet_valid)",
            id="not yet",
        ),
        pytest.param(
            [Refusal(Rule.FROZEN, scope="all", lapses=1_800_000_000, reason="odd payouts")],
            "the freeze of all, until 2027-01-15 08:00:00 UTC (frozen): odd payouts",
            id="frozen",
        ),
        pytest.param([Refusal(Rule.DELAY, waited=1)], "delay_not_over(waited=1)", id="a delay that says no time"),
        pytest.param(
            [SHOWN],
            "1 of operations, risk by a key that displays (keystore or hardware wallet) (no_key_that_displays_signed)",
            id="a key that displays",
        ),
        pytest.param([SHORT, SLOTS], f"{SHORT}; 1 of risk, 2 of treasury (quorum_not_reached)", id="several reasons"),
    ],
)
def test_waits_for(refusals: list[Refusal], told: str) -> None:
    """People and times in plain words, each with its rule; everything else as it is."""
    assert waits_for(refusals) == told


def test_people_missing() -> None:
    """Only who is asked for; each once; nobody where nobody is."""
    assert people_missing([SHORT, SLOTS, SLOTS]) == "1 of risk, 2 of treasury"
    assert people_missing([SHORT]) == ""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59, "59 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (86_459, "1 d 59 s"),
        (3_661, "1 h 1 min"),
    ],
)
def test_span(seconds: int, told: str) -> None:
    """Two largest units, rounded down."""
    assert words.span(seconds) == told


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        (253_402_300_800, "second 253402300800"),
        (2**64 - 1, f"second {2**64 - 1}"),
        (-1, "second -1"),
    ],
)
def test_at(time: int, told: str) -> None:
    """A date, or the number where no calendar goes so far: a document from outside may name any uint64."""
    assert words.at(time) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("Grüße, 漢字", "Grüße, 漢字", id="every script that shows"),
        pytest.param("\x1b[2J", "\\x1b[2J", id="an escape sequence"),
        pytest.param("a\nb\x00", "a\\nb\\x00", id="line break and NUL"),
        pytest.param("\u202eba", "\\u202eba", id="turned around"),
        pytest.param("a\u200bb", "a\\u200bb", id="a space without width"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
    ],
)
def test_clean(text: str, told: str) -> None:
    """What a terminal acts on, or no eye can see, is spelled out."""
    assert words.clean(text) == told
