# SPDX-License-Identifier: AGPL-3.0-or-later
"""A message in plain words. Everything outside ASCII's visible letters is spelled out: what looks like a letter may be another one."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from custody.commands.second_screen.messages import Message
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

MOST_DECIMALS: Final = 36
_LAST: Final = 253_402_300_799
_NATIVE: Final = "0x" + "00" * 20
_NATIVE_DECIMALS: Final = {"eip155": 18, "bip122": 8}
"""Of the coin that a kind of chain counts in: wei and satoshi, whatever a message says."""


def shown(text: str) -> str:
    r"""Text as it is, but for whatever is not a visible ASCII character or a space, which is spelled out: `\u0430`, `\x1b`."""
    return "".join(c if " " <= c <= "~" and c != "\\" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return "\\\\" if character == "\\" else character.encode("unicode_escape").decode()


def units(amount: int, decimals: int) -> str:
    """An amount in its unit, every digit kept, in thousands: `1,234.5`."""
    if not 0 <= decimals <= MOST_DECIMALS:
        raise InvalidInput("decimals", Rule.MALFORMED, str(decimals), f"0 to {MOST_DECIMALS}")
    whole, rest = divmod(amount, 10**decimals)
    places = f"{rest:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{whole:,}" + (f".{places}" if places else "")


def time(seconds: int) -> str:
    """Seconds since 1970 as a date in UTC, and the number."""
    if not 0 < seconds <= _LAST:
        return f"second {seconds}"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC ({seconds})"


def tell(message: Message, now: int) -> Iterator[str]:
    """What would be signed, line by line."""
    told = _TELL.get(message.kind)
    if told is not None:
        yield from told(message, now)
    else:
        yield f"{message.kind}, field by field:"
        yield from _fields(message.fields, "  ")


def suspicions(message: Message) -> Iterator[str]:
    """What is wrong with a message by itself, whatever a payload does."""
    if message.kind != "TransferIntent":
        return
    fields = message.fields
    namespace, decimals = fields["chain"].partition(":")[0], fields["decimals"]
    known = _NATIVE_DECIMALS.get(namespace)
    if known is None:
        yield f"chain: {shown(fields['chain'])} is of no kind that is known here"
    elif fields["token"].lower() == _NATIVE and decimals != known:
        # A hundred bitcoin with two places more would read as one.
        yield f"decimals: the message counts {decimals} places, this chain's own coin has {known}"
    elif namespace == "bip122" and fields["token"].lower() != _NATIVE:
        yield f"token: {shown(fields['token'])}, but Bitcoin has no tokens"
    if not fields["amount"]:
        yield "amount: zero"
    if not fields["notBefore"] < fields["expiry"]:
        yield f"expiry: {time(fields['expiry'])} is not after not before: {time(fields['notBefore'])}"


def _line(name: str, text: str) -> str:
    return f"  {name:<12} {text}"


def _intent(message: Message, now: int) -> Iterator[str]:
    f = message.fields
    token = f["token"].lower() != _NATIVE
    yield "TransferIntent: a yes to exactly this payment and to nothing else"
    yield _line("pays", f"{units(f['amount'], f['decimals'])} {shown(f['asset'])}")
    yield _line("", f"{f['amount']} base units, {f['decimals']} places")
    yield _line("as", f"the token at {f['token']}" if token else "the chain's own coin")
    yield _line("to", shown(f["destination"]))
    yield _line("", f"{shown(f['destinationKind'])}; enrolment 0x{f['enrolment'].hex()}")
    yield _line("on chain", shown(f["chain"]))
    yield _line("out of", f"wallet 0x{f['wallet'].hex()}")
    yield _line("", f"certificate 0x{f['certificate'].hex()}")
    yield _line("of account", shown(f["account"]))
    yield _line("purpose", shown(f["purpose"]))
    yield _line("asked for by", f"{shown(f['initiator'])}; proposal 0x{f['proposal'].hex()}")
    yield _line("network fee", f"at most {f['maximumFee']} base units of the chain's coin out of the wallet")
    yield _line("from", time(f["notBefore"]))
    yield _line("until", time(f["expiry"]) + ("; EXPIRED" if f["expiry"] <= now else ""))
    yield _line("under", f"policy 0x{f['policy'].hex()}, roster version {f['roster']}")
    yield _line("id", shown(f["id"]))


def _proposal(message: Message, now: int) -> Iterator[str]:
    f = message.fields
    yield "Proposal: asks for a payment; by itself it pays nothing"
    yield _line("asks for", f"{f['amount']} base units of {shown(f['asset'])} on {shown(f['chain'])}")
    yield _line("to", shown(f["destination"]))
    yield _line("of account", shown(f["account"]))
    yield _line("purpose", shown(f["purpose"]))
    yield _line("reference", shown(f["reference"]))
    yield _line("until", time(f["expiry"]) + ("; EXPIRED" if f["expiry"] <= now else ""))


def _rejection(message: Message, _now: int) -> Iterator[str]:
    yield "Rejection: a NO to one transfer, which ends it"
    yield _line("transfer", f"0x{message.fields['intent'].hex()}")
    yield _line("because", shown(message.fields["reason"]))


def _freeze(message: Message, now: int) -> Iterator[str]:
    f = message.fields
    yield "Freeze: nothing in this scope is signed while it lasts"
    yield _line("scope", shown(f["scope"]))
    yield _line("because", shown(f["reason"]))
    yield _line("from", time(f["fromTime"]))
    yield _line("until", time(f["lapses"]) + ("; LAPSED" if f["lapses"] <= now else ""))


def _login(message: Message, now: int) -> Iterator[str]:
    f = message.fields
    yield "Login: opens one session in a browser; it approves nothing"
    yield _line("at", shown(f["origin"]))
    yield _line("session", f"0x{f['session'].hex()}")
    yield _line("asked for", time(f["issued"]))
    yield _line("until", time(f["expires"]) + ("; EXPIRED" if f["expires"] <= now else ""))


_TELL: Final = {
    "TransferIntent": _intent,
    "Proposal": _proposal,
    "Rejection": _rejection,
    "Freeze": _freeze,
    "Login": _login,
}
_TIMES: Final = frozenset({"notBefore", "expiry", "expires", "fromTime", "lapses", "issued"})


def _fields(fields: Mapping[str, object], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        yield from _value(name, value, indent)


def _value(name: str, value: object, indent: str) -> Iterator[str]:
    match value:
        case dict():
            yield f"{indent}{name}:"
            yield from _fields(value, indent + "  ")
        case list():
            yield f"{indent}{name}:" if value else f"{indent}{name}: none"
            for place, item in enumerate(value, 1):
                yield from _value(f"{place}.", item, indent + "  ")
        case bytes():
            yield f"{indent}{name}: 0x{value.hex()}"
        case int() if name in _TIMES:
            yield f"{indent}{name}: {time(value)}"
        case _:
            yield f"{indent}{name}: {shown(str(value))}"
