# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead verify-intent`: what it says is what would be signed, and each way in which a payload does something else has its word."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from custody import cli
from custody.chains.bitcoin.scripts import script_pubkey
from custody.commands.second_screen import messages as reading
from custody.commands.second_screen.messages import TEXTS, Message, read
from custody.commands.second_screen.telling import shown, tell, units
from custody.rules.intents import TransferIntent
from custody.rules.payouts import PsbtPayload
from custody.rules.typed import ZERO_ADDRESS, Domain, Struct
from custody.rules.wallets import Address, Tier
from tests.fakes.seat import BITCOIN, EVM, NOW
from tests.fakes.trust import (
    PAYEE,
    STRANGER,
    Ask,
    batch_tx,
    bitcoin_payload,
    build,
    call_of,
    evm_payload,
    packed,
    psbt_of,
    safe_tx,
    transfers_of,
    world,
)
from tests.vectors.examples import EXAMPLES, GENESIS

USDX: Final[dict[str, Any]] = {"both": {"asset": "USDX", "amount": 10**9}}
VECTORS: Final = json.loads(Path("tests/vectors/typed_messages.json").read_text())["vectors"]


def signed_form(message: Struct) -> dict[str, Any]:
    """A message as it travels, without signatures."""
    return {"type": type(message).__name__, "message": message.to_json()}


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n.split(" ")[0] in TEXTS])
def test_its_own_reading_hashes_to_the_same(name: str) -> None:
    """Types that are written out a second time, and eth-account's own encoder, agree with every vector."""
    (vector,) = [v for v in VECTORS if v["name"] == name]
    message = read({"type": name.split(" ", maxsplit=1)[0], "message": vector["json"]})
    assert TEXTS[message.kind] == vector["encode_type"]
    assert (message.hash.hex(), message.digest(GENESIS).hex()) == (vector["struct_hash"][2:], vector["digest"][2:])
    assert [*tell(message, NOW)]


def test_everything_that_people_sign_is_known() -> None:
    """What only machines sign is not for a person's second screen."""
    machines = {"Statement", "SeatHead", "WalletKey", "DepositAddress", "Price", "Settlement"}
    assert {name.split(" ")[0] for name in EXAMPLES} - machines == set(TEXTS)


WHOLE: Final = signed_form(EXAMPLES["TransferIntent"])


def with_field(name: str, value: object) -> dict[str, Any]:
    """The example with one field of another value; None leaves it out."""
    fields = dict(WHOLE["message"]) | {name: value}
    return {**WHOLE, "message": {k: v for k, v in fields.items() if v is not None}}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="null"),
        pytest.param([WHOLE], id="a list"),
        pytest.param({"message": WHOLE["message"]}, id="no type"),
        pytest.param({**WHOLE, "type": "Approval"}, id="no message that people sign"),
        pytest.param({**WHOLE, "type": ["TransferIntent"]}, id="type a list"),
        pytest.param({**WHOLE, "note": "please sign"}, id="something beside it"),
        pytest.param({**WHOLE, "type": "Rejection"}, id="another type than its fields"),
        pytest.param({**WHOLE, "message": []}, id="fields as a list"),
        pytest.param(with_field("memo", "x"), id="a field more"),
        pytest.param(with_field("amount", None), id="no amount"),
        pytest.param(with_field("amount", 5), id="a number of JSON"),
        pytest.param(with_field("amount", "1e18"), id="an exponent"),
        pytest.param(with_field("amount", "0x10"), id="hex"),
        pytest.param(with_field("amount", "-1"), id="below zero"),
        pytest.param(with_field("amount", "007"), id="leading zeros"),
        pytest.param(with_field("amount", str(2**256)), id="2^256"),
        pytest.param(with_field("amount", "9" * 5000), id="five thousand digits"),
        pytest.param(with_field("amount", "\u0661"), id="a digit of another script"),
        pytest.param(with_field("decimals", str(2**16)), id="too large for its type"),
        pytest.param(with_field("token", "0x77"), id="half an address"),
        pytest.param(with_field("wallet", "0x" + "AB" * 32), id="capitals in hex"),
        pytest.param(with_field("wallet", "0x" + "ab" * 31), id="31 bytes"),
        pytest.param(with_field("destination", 7), id="a number for a text"),
        pytest.param(with_field("destination", "\ud800"), id="half a character"),
        pytest.param(with_field("destination", "x" * 70_000), id="a text without end"),
    ],
)
def test_malformed(tmp_path: Path, data: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and nothing is said as if it were a message."""
    assert run(tmp_path, [data])[0] == 2
    assert "pays" not in capsys.readouterr().out


def run(folder: Path, given: list[object], *more: str, **files: object) -> tuple[int, list[str]]:
    """The command's exit code; `files` are written and named by options of theirs."""
    arguments: list[str] = []
    for number, data in enumerate(given):
        path = folder / f"message-{number}.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        arguments.append(str(path))
    for name, data in files.items():
        for number, each in enumerate(data if isinstance(data, tuple) else (data,)):
            path = folder / f"{name}-{number}.json"
            path.write_text(each if isinstance(each, str) else json.dumps(each))
            arguments += [f"--{name}", str(path)]
    genesis = () if "--home" in more else ("--genesis", "0x" + GENESIS.hex())
    try:
        code = cli.main(["verify-intent", *arguments, *genesis, *more])
    except SystemExit as ended:  # how a sub-command that ran ends
        code = ended.code if isinstance(ended.code, int) else 1
    return code, arguments


def asked(ask: Ask) -> list[TransferIntent]:
    """The intents of a request."""
    return [transfer.intent for transfer in transfers_of(ask)]


def certificate(ask: Ask) -> dict[str, Any]:
    """The wallet's certificate."""
    return signed_form(world().certificate(ask.tier, ask.chain))


def payload_form(payload: Struct) -> dict[str, Any]:
    """As seats are handed it."""
    return {"type": type(payload).__name__, "fields": payload.to_json()}


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(Ask(), id="ether"),
        pytest.param(Ask(**USDX), id="a token"),
        pytest.param(Ask(payments=3), id="a batch"),
        pytest.param(Ask(chain=BITCOIN), id="bitcoin"),
        pytest.param(Ask(chain=BITCOIN, payments=3), id="three in one"),
    ],
)
def test_a_payload_that_does_exactly_that(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, the amount in its unit, the destination whole, and what seats would sign."""
    intents = asked(ask)
    made = evm_payload(ask, intents) if ask.chain.is_evm else bitcoin_payload(ask, intents)
    code, _ = run(tmp_path, [signed_form(i) for i in intents], payload=payload_form(made), certificate=certificate(ask))
    told = capsys.readouterr().out
    assert code == 0, told
    assert "agrees: the payload does exactly this and nothing else" in told
    assert told.count(PAYEE[ask.chain.name]) == 2 * len(intents)
    assert "seats would sign 0x" in told
    for intent in intents:
        assert f"{units(intent.amount, intent.decimals)} {intent.asset}" in told
        assert "0x" + Domain(GENESIS).digest(intent).hex() in told


ETHER: Final = asked(Ask())[0]
HOT: Final = world().certificate(Tier.CUSTOMER_HOT, EVM)
COINS: Final = world().certificate(Tier.CUSTOMER_HOT, BITCOIN)
TOKENS: Final = asked(Ask(**USDX))[0]
BITCOINS: Final = asked(Ask(chain=BITCOIN))[0]
THIEF: Final = "bcrt1qqurswpc8qurswpc8qurswpc8qurswpc8dxm0gk"


def paying(to: str = BITCOINS.destination, units_: int = BITCOINS.amount) -> tuple[int, bytes]:
    """One output."""
    return units_, script_pubkey(Address(BITCOIN, to))


def coins(*outputs: tuple[int, bytes], **changes: Any) -> Any:
    """An unsigned PSBT with these outputs."""
    return PsbtPayload(BITCOIN.name, psbt_of(COINS, [*outputs], **changes).serialize())


def false_change() -> Any:
    """Change that claims to be the wallet's and goes to a stranger."""
    psbt = psbt_of(COINS, [paying()])
    psbt.outputs[-1].script_pubkey.data = script_pubkey(Address(BITCOIN, THIEF))
    return PsbtPayload(BITCOIN.name, psbt.serialize())


ZERO: Final = bytes(32)
HOSTILE: Final = [
    pytest.param(ETHER, safe_tx(HOT, ETHER.destination, 2 * ETHER.amount), "amount: the message says", id="another amount"),
    pytest.param(ETHER, safe_tx(HOT, STRANGER, ETHER.amount), "destination: the message says", id="another destination"),
    pytest.param(ETHER, safe_tx(HOT, STRANGER, 1), "destination: the message says", id="both"),
    pytest.param(
        ETHER, batch_tx(HOT, packed(*call_of(ETHER)) + packed(STRANGER, 1, b"")), "extra payment: 1 base units of ETH", id="a leaf more"
    ),
    pytest.param(ETHER, batch_tx(HOT, packed(*call_of(ETHER)) * 2), "extra payment", id="the same twice"),
    pytest.param(ETHER, safe_tx(HOT, HOT.safe[0].address), "missing payment", id="nothing at all"),
    pytest.param(ETHER, safe_tx(HOT, STRANGER, operation=1), "delegatecall", id="a delegatecall"),
    pytest.param(ETHER, batch_tx(HOT, packed(STRANGER, 0, b"", 1)), "delegatecall", id="a delegatecall inside a batch"),
    pytest.param(
        ETHER, replace(safe_tx(HOT, *call_of(ETHER)), gas_price=1, refund_receiver=STRANGER), "gas refund", id="a gas refund"
    ),
    pytest.param(
        ETHER, safe_tx(HOT, HOT.safe[0].address, data=bytes.fromhex("610b5925") + ZERO), "changes the Safe itself", id="a module"
    ),
    pytest.param(
        ETHER, safe_tx(HOT, HOT.safe[0].address, data=bytes.fromhex("694e80c3") + (1).to_bytes(32)), "owner_change", id="a lower threshold"
    ),
    pytest.param(ETHER, safe_tx(HOT, STRANGER, data=b"\1\2\3\4"), "effect is not known", id="a call of a stranger"),
    pytest.param(ETHER, replace(safe_tx(HOT, *call_of(ETHER)), safe=STRANGER), "another wallet", id="another Safe"),
    pytest.param(ETHER, replace(safe_tx(HOT, *call_of(ETHER)), chain="eip155:1"), "another wallet", id="another chain"),
    pytest.param(ETHER, safe_tx(HOT, *call_of(TOKENS)), "moves something that no message is about", id="a token instead"),
    pytest.param(TOKENS, safe_tx(HOT, TOKENS.destination, TOKENS.amount), "asset: the message says USDX", id="ether instead"),
    pytest.param(
        TOKENS, safe_tx(HOT, TOKENS.token, data=call_of(TOKENS)[2] + b"\0"), "hide something", id="a byte after the call"
    ),
    pytest.param(BITCOINS, coins(paying(units_=BITCOINS.amount + 1)), "amount: the message says", id="bitcoin: another amount"),
    pytest.param(BITCOINS, coins(paying(to=THIEF)), "destination: the message says", id="bitcoin: another destination"),
    pytest.param(BITCOINS, coins(paying(), paying(THIEF, 600)), "extra payment: 600 base units", id="bitcoin: an output more"),
    pytest.param(BITCOINS, coins(paying(), paying(THIEF, 10**8), change=None, units=BITCOINS.amount + 10**8 + 5000),
                 "extra payment", id="bitcoin: change that is a stranger's"),
    pytest.param(BITCOINS, false_change(), "only looks like change", id="bitcoin: change that claims to be ours"),
    pytest.param(BITCOINS, coins(paying(), fee=20_001), "network fee: the messages allow 20000", id="bitcoin: a higher fee"),
    pytest.param(BITCOINS, coins(paying(), change=None), "burns coins", id="bitcoin: change burnt as fee"),
    pytest.param(BITCOINS, coins(paying(), change=99), "cannot be read as a payment", id="bitcoin: change where nobody looks"),
]  # fmt: skip


@pytest.mark.parametrize(("intent", "payload", "told"), HOSTILE)
def test_a_payload_that_does_something_else(
    tmp_path: Path, intent: TransferIntent, payload: Struct, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, and the difference is named."""
    own = COINS if intent.chain == BITCOIN.name else HOT
    code, _ = run(tmp_path, [signed_form(intent)], payload=payload_form(payload), certificate=signed_form(own))
    said = capsys.readouterr().out
    assert code == 1, said
    assert "agrees" not in said
    assert any(told in line for line in said.splitlines() if line.startswith("DIFFERS")), said


def test_a_page_that_shows_another_amount(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digest of what the page asks to sign is not the digest of what it shows."""
    shown_, asked_for = ETHER, replace(ETHER, amount=100 * ETHER.amount)
    digest = "0x" + Domain(GENESIS).digest(asked_for).hex()
    assert run(tmp_path, [signed_form(asked_for)], "--digest", digest)[0] == 0
    assert "100 ETH" in capsys.readouterr().out
    assert run(tmp_path, [signed_form(shown_)], "--digest", digest)[0] == 1
    assert f"DIFFERS  digest: shown was {digest}" in capsys.readouterr().out


@pytest.mark.parametrize("spell", [str.upper, lambda d: d[2:]], ids=["capitals", "without 0x"])
def test_a_digest_in_another_spelling(tmp_path: Path, spell: Callable[[str], str]) -> None:
    """A device may show it so."""
    digest = "0x" + spell("0x" + Domain(GENESIS).digest(ETHER).hex()).removeprefix("0X").removeprefix("0x")
    assert run(tmp_path, [signed_form(ETHER)], "--digest", digest.removeprefix("0x"))[0] == 0


def test_another_certificate_than_the_message_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wallet that somebody put in its place has another hash."""
    other = world().certificate(Tier.OPERATIONAL, EVM)
    payload = safe_tx(other, *call_of(ETHER))
    code, _ = run(tmp_path, [signed_form(ETHER)], payload=payload_form(payload), certificate=signed_form(other))
    assert (code, "DIFFERS  certificate: " in capsys.readouterr().out) == (1, True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"decimals": 20}, "this chain's own coin has 18", id="two places more"),
        pytest.param({"amount": 0}, "amount: zero", id="nothing"),
        pytest.param({"expiry": ETHER.not_before}, "is not after not before", id="no time"),
        pytest.param({"chain": "solana:1"}, "no kind that is known", id="an unknown chain"),
        pytest.param(
            {"chain": BITCOIN.name, "decimals": 8, "token": TOKENS.token},
            "Bitcoin has no tokens",
            id="a token on Bitcoin",
        ),
    ],
)
def test_a_message_that_cannot_be_meant(
    tmp_path: Path, change: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 without any payload."""
    assert run(tmp_path, [signed_form(replace(ETHER, **change))])[0] == 1
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("customer:\u0430da", r"customer:\u0430da", id="a Cyrillic letter"),
        pytest.param("ada\u202e0001", r"ada\u202e0001", id="turned around"),
        pytest.param("ada\x1b[2K\rbob", r"ada\x1b[2K\rbob", id="an escape sequence"),
        pytest.param("a\nDIFFERS  b", r"a\nDIFFERS  b", id="a line of its own"),
        pytest.param("ada\u200bx", r"ada\u200bx", id="of no width"),
        pytest.param("ada\\u0430", r"ada\\u0430", id="what is spelled out already"),
        pytest.param("\U0001f600", r"\U0001f600", id="beyond the first plane"),
        pytest.param("plain, $5 ~", "plain, $5 ~", id="plain"),
    ],
)
def test_text_shows_as_what_it_is(tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In every field that is text."""
    assert shown(text) == told
    for field in ("account", "purpose", "initiator", "id", "destination", "destination_kind", "asset"):
        assert run(tmp_path, [signed_form(replace(ETHER, **{field: text}))])[0] == 0
        out = capsys.readouterr().out
        assert told in out
        assert out.isascii()


@pytest.mark.parametrize(
    ("amount", "decimals", "told"),
    [
        pytest.param(2**256 - 1, 18, f"{2**256 // 10**18:,}.584007913129639935", id="2^256 - 1"),
        pytest.param(1, 18, "0.000000000000000001", id="one wei"),
        pytest.param(1, 36, "0." + "0" * 35 + "1", id="the most places"),
        pytest.param(10**18, 18, "1", id="one"),
        pytest.param(1_234_567_800_000_000, 8, "12,345,678", id="in thousands"),
        pytest.param(5, 0, "5", id="no places"),
    ],
)  # fmt: skip
def test_amounts_are_exact(amount: int, decimals: int, told: str) -> None:
    """Every digit; nothing is rounded."""
    assert units(amount, decimals) == told


def test_too_many_places(tmp_path: Path) -> None:
    """Nobody reads 65,535 of them."""
    assert run(tmp_path, [signed_form(replace(ETHER, decimals=65_535, token=STRANGER))])[0] == 2


def test_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A payload without a certificate, no genesis, two messages for one digest, and files that are none."""
    payload = payload_form(safe_tx(HOT, *call_of(ETHER)))
    assert run(tmp_path, [signed_form(ETHER)], payload=payload)[0] == 2
    assert ETHER.certificate.hex() in capsys.readouterr().err
    assert run(tmp_path, [signed_form(ETHER)], "--home", str(tmp_path))[0] == 2
    assert run(tmp_path, [signed_form(ETHER)] * 2, "--digest", "0x" + "00" * 32)[0] == 2
    assert run(tmp_path, [signed_form(ETHER)], "--digest", "0x00")[0] == 2
    assert run(tmp_path, ["[" * 100_000])[0] == 2
    assert run(tmp_path, ["{"])[0] == 2
    for odd in ({}, [], {"type": "SafeTx", "fields": {}}, {"type": "Other", "fields": {}}, {"type": [], "fields": {}}):
        assert run(tmp_path, [signed_form(ETHER)], payload=odd, certificate=signed_form(HOT))[0] == 2
    rejection = signed_form(EXAMPLES["Rejection"])
    assert run(tmp_path, [rejection], payload=payload, certificate=signed_form(HOT))[0] == 2


def test_genesis_is_the_homes_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `bulkhead sign` has it; a first roster version is its own salt."""
    (tmp_path / "genesis").write_text("0x" + GENESIS.hex() + "\n")
    assert run(tmp_path, [signed_form(ETHER)], "--home", str(tmp_path))[0] == 0
    assert Domain(GENESIS).digest(ETHER).hex() in capsys.readouterr().out
    first = replace(EXAMPLES["RosterVersion"], version=1)  # type: ignore[type-var]
    assert run(tmp_path, [signed_form(first)])[0] == 0
    assert Domain(first.struct_hash).digest(first).hex() in capsys.readouterr().out


def test_a_carried_request_is_a_payload(tmp_path: Path) -> None:
    """What `bulkhead payout export` wrote for cold seats can be checked as it is."""
    request = build(Ask()).request
    assert run(tmp_path, [signed_form(ETHER)], payload=request.to_json(), certificate=certificate(Ask()))[0] == 0


def test_it_says_that_time_is_over() -> None:
    """An expired message is said to be so, whatever a page says."""
    message = Message("TransferIntent", read(signed_form(ETHER)).fields)
    assert any("EXPIRED" in line for line in tell(message, ETHER.expiry))
    assert not any("EXPIRED" in line for line in tell(message, ETHER.expiry - 1))
    assert ETHER.token == ZERO_ADDRESS
    assert reading.TEXTS is TEXTS
