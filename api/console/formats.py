# SPDX-License-Identifier: AGPL-3.0-or-later
"""How things are written on a page: exact, in full, with their zone. Nothing is rounded, shortened or hidden (STYLE.md).

Whoever owns the database writes what a person reads: every text that is not markup of ours is spelled out by `words.clean` and then
escaped, so that neither a tag nor U+202E changes what stands there.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

from custody.rules import words
from custody.rules.amounts import Amount, Assets

_GROUP: Final = 8
_CENT: Final = 10_000
"""Micro-USD."""
_MOST: Final = 253_402_300_799
"""The last second of the year 9999."""


def shown(value: object) -> object:
    """What every expression of a template goes through: text as it is, with what no eye sees spelled out."""
    if isinstance(value, Markup):
        return value
    if value is None or isinstance(value, float):  # a float is no number of coins, and None is no word
        raise TypeError(f"a page shows no {type(value).__name__}")
    return words.clean(str(value))


def quantity(units: int, symbol: str, assets: Assets) -> Markup:
    """Base units in the asset's own unit, every digit: `0.25 BTC`. An asset that is not known keeps its base units, and says so."""
    if type(units) is not int:
        raise TypeError(f"units must be int, not {units!r}")
    asset = next((known for known in assets if known.symbol == symbol), None)
    if asset is None or abs(units) >= 2**256:
        told = f"base units of {words.clean(symbol)}, which the registry does not know"
        return Markup('<span class="amount unknown">{} {}</span>').format(units, told)
    number = grouped(Amount(asset, units).decimal)
    return Markup('<span class="amount"><span class="num">{}</span> <span class="unit">{}</span></span>').format(
        number, symbol
    )


def grouped(decimal: str) -> Markup:
    """Thousands of the whole part set apart by room alone: what is copied has no separator that another program could misread."""
    sign, digits = ("−", decimal[1:]) if decimal.startswith("-") else ("", decimal)
    whole, dot, fraction = digits.partition(".")
    first = len(whole) % 3 or 3
    groups = [whole[:first], *(whole[start : start + 3] for start in range(first, len(whole), 3))]
    apart = Markup("").join(Markup("<i>{}</i>").format(group) for group in groups)
    return Markup("{}{}{}{}").format(sign, apart, dot, fraction)


def dollars(micro: int) -> Markup:
    """Micro-USD, rounded up to the cent, as values are everywhere."""
    if type(micro) is not int:
        raise TypeError(f"micro-USD must be int, not {micro!r}")
    cents = -(-abs(micro) // _CENT)
    sign = "-" if micro < 0 else ""
    number = grouped(f"{sign}{cents // 100}.{cents % 100:02d}")
    return Markup('<span class="amount"><span class="num">{}</span> <span class="unit">USD</span></span>').format(
        number
    )


def when(time: int) -> Markup:
    """Seconds since 1970 as a date with its zone."""
    if not 0 < time <= _MOST:
        return Markup("{}").format(words.at(time))
    machine = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, words.at(time))


def full(value: bytes | str) -> Markup:
    """A hash or an address whole, with places to break a line and a button that copies it."""
    text = words.clean("0x" + value.hex() if isinstance(value, bytes) else value)
    parts = [text[start : start + _GROUP] for start in range(0, len(text), _GROUP)]
    broken = Markup("<wbr>").join(parts)
    copy = Markup('<button type="button" class="copy" data-copy="{}" aria-label="Copy {}">copy</button>').format(
        text, text
    )
    return Markup('<span class="full"><code>{}</code>{}</span>').format(broken, copy)


def status_class(status: str) -> str:
    """Which of the five colours a status has; the word stands beside it always."""
    return _TONES.get(status, "calm")


_TONES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("SUBMITTED", "PENDING_SCREENING", "PENDING_AUTHORIZATION", "SEEN", "AWAITING_QUORUM"), "ask"),
    **dict.fromkeys(("QUEUED", "PENDING_SIGNATURE", "BROADCASTING", "CONFIRMING", "TIME_LOCKED"), "busy"),
    **dict.fromkeys(("COMPLETED", "CREDITED", "ACTIVE"), "good"),
    **dict.fromkeys(("BLOCKED", "BROADCAST_UNKNOWN", "CANCELLING"), "warn"),
    **dict.fromkeys(("REJECTED", "FAILED", "REVERSED", "ORPHANED"), "bad"),
}
