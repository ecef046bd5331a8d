# SPDX-License-Identifier: AGPL-3.0-or-later
"""Typed messages: golden vectors checked by two paths, the one JSON form, and everything it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from Crypto.Hash import keccak
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from custody.rules import typed
from custody.rules.certificates import SeatHead, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor, Proposal, Void
from custody.rules.refusals import Rule
from custody.rules.settlements import Leg
from custody.rules.statements import IntentFacts, Statement
from custody.rules.typed import (
    ZERO32,
    Bytes,
    Bytes32,
    Domain,
    EvmHex,
    Int256,
    Struct,
    Uint16,
    Uint64,
    Uint256,
    camel,
)
from tests.vectors.examples import CERTIFICATE, EXAMPLES, GENESIS
from tests.vectors.make import encode_type

GOLDEN: Final = json.loads((Path(__file__).parents[1] / "vectors" / "typed_messages.json").read_text("utf-8"))
VECTORS: Final = [pytest.param(v, id=v["name"]) for v in GOLDEN["vectors"]]

VERBS: Final = {
    "Proposal", "TransferIntent", "Rejection", "Enrolment", "WalletCertificate", "Rotation", "RosterVersion",
    "PolicyActivation", "Settlement", "ManualEntry", "Void", "Freeze", "Unfreeze", "Statement", "DepositAddress", "SeatHead",
    "WalletKey", "Price", "Login", "Backup",
}  # fmt: skip
"""TRUST.md, "One typed message per verb", a seat's own key, a feeder's price, a login, and what somebody signs of a backup."""


# The second path: EIP-712 written plainly from the vector's own text, sharing nothing with custody or eth-account.


def keccak256(data: bytes) -> bytes:
    """Keccak-256 by pycryptodome."""
    return keccak.new(digest_bits=256, data=data).digest()


def parse_types(text: str) -> dict[str, list[tuple[str, str]]]:
    """`A(x y,…)B(…)` to each struct's members as (type, name)."""
    return {
        name: [tuple(member.split(" ")) for member in members.split(",")]
        for name, members in re.findall(r"(\w+)\(([^)]*)\)", text)
    }


def type_text(name: str, types: dict[str, list[tuple[str, str]]]) -> str:
    """encodeType of one struct: itself, then every struct it reaches, in alphabetical order."""
    reached, waiting = {name}, [name]
    while waiting:
        for kind, _ in types[waiting.pop()]:
            base = kind.removesuffix("[]")
            if base in types and base not in reached:
                reached.add(base)
                waiting.append(base)
    ordered = [name, *sorted(reached - {name})]
    return "".join(f"{n}({','.join(f'{kind} {member}' for kind, member in types[n])})" for n in ordered)


def encode_value(kind: str, value: Any, types: dict[str, list[tuple[str, str]]]) -> bytes:  # one for each kind
    """encodeData of one member: 32 bytes."""
    if kind.endswith("[]"):
        return keccak256(b"".join(encode_value(kind[:-2], item, types) for item in value))
    if kind in types:
        return hash_struct(kind, value, types)
    if kind == "string":
        return keccak256(value.encode("utf-8"))
    if kind == "bytes":
        return keccak256(bytes.fromhex(value[2:]))
    if kind == "bytes32":
        return bytes.fromhex(value[2:])
    if kind == "address":
        return bytes(12) + bytes.fromhex(value[2:])
    if kind == "bool":
        return int(value).to_bytes(32)
    return int(value).to_bytes(32, signed=kind.startswith("int"))


def hash_struct(name: str, value: dict[str, Any], types: dict[str, list[tuple[str, str]]]) -> bytes:
    """hashStruct of the JSON form, whose snake_case keys stand in the order of the type."""
    encoded = b"".join(
        encode_value(kind, item, types) for (kind, _), item in zip(types[name], value.values(), strict=True)
    )
    return keccak256(keccak256(type_text(name, types).encode()) + encoded)


def domain_separator(domain: dict[str, str]) -> bytes:
    """hashStruct of EIP712Domain with name, version and salt."""
    head = keccak256(b"EIP712Domain(string name,string version,bytes32 salt)")
    name, version = keccak256(domain["name"].encode()), keccak256(domain["version"].encode())
    return keccak256(head + name + version + bytes.fromhex(domain["salt"][2:]))


@pytest.mark.parametrize("vector", VECTORS)
class TestGoldenVectors:
    """What stands in the file is what the code computes, and what an independent reading of EIP-712 computes."""

    def test_the_code_still_says_the_same(self, vector: dict[str, Any]) -> None:
        """Type string, JSON form, struct hash and digest are unchanged."""
        message = EXAMPLES[vector["name"]]
        assert encode_type(message) == vector["encode_type"]
        assert message.to_json() == vector["json"]
        assert message.struct_hash.hex() == vector["struct_hash"][2:]
        assert Domain(GENESIS).digest(message).hex() == vector["digest"][2:]

    def test_plain_keccak_agrees(self, vector: dict[str, Any]) -> None:
        """The second path reaches the same hashes from the file alone."""
        name = vector["name"].split(" ")[0]
        types = parse_types(vector["encode_type"])
        assert type_text(name, types) == vector["encode_type"]
        body = hash_struct(name, vector["json"], types)
        assert "0x" + body.hex() == vector["struct_hash"]
        digest = keccak256(b"\x19\x01" + domain_separator(GOLDEN["domain"]) + body)
        assert "0x" + digest.hex() == vector["digest"]

    def test_json_reads_back(self, vector: dict[str, Any]) -> None:
        """The JSON form is read back to the same message."""
        message = EXAMPLES[vector["name"]]
        assert type(message).from_json(json.loads(json.dumps(vector["json"]))) == message

    def test_member_names_are_the_json_keys_in_camel_case(self, vector: dict[str, Any]) -> None:
        """What a hardware wallet shows is what the file says."""
        members = parse_types(vector["encode_type"])[vector["name"].split(" ")[0]]
        assert [camel(key) for key in vector["json"]] == [member for _, member in members]


def test_every_verb_has_a_vector() -> None:
    """TRUST.md's list and the vectors are the same."""
    assert {name.split(" ")[0] for name in EXAMPLES} == VERBS
    assert [v["name"] for v in GOLDEN["vectors"]] == list(EXAMPLES)


def test_no_two_messages_share_a_digest() -> None:
    """The verb is inside what is signed."""
    digests = [v["digest"] for v in GOLDEN["vectors"]]
    assert len(set(digests)) == len(digests)


def test_another_genesis_is_another_digest() -> None:
    """Nothing signed for one deployment means anything in another; the struct hash is the same in both."""
    message = EXAMPLES["Proposal"]
    assert Domain(bytes(31) + b"\x02").digest(message) != Domain(GENESIS).digest(message)


def test_vectors_leave_no_array_of_the_certificate_untried() -> None:
    """The two certificate examples fill `safe` and `script` between them."""
    on_bitcoin = EXAMPLES["WalletCertificate on Bitcoin"]
    assert isinstance(on_bitcoin, WalletCertificate)
    assert CERTIFICATE.safe
    assert on_bitcoin.script


LEG: Final = {"customer": "ada", "asset": "ETH", "change": "-5"}
PROPOSAL: Final = EXAMPLES["Proposal"].to_json()
FACTS: Final = EXAMPLES["Statement"].to_json()["intents"][0]
HEAD: Final = EXAMPLES["SeatHead"].to_json()
VOID: Final = EXAMPLES["Void"].to_json()


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        pytest.param(Leg, {**LEG, "bonus": "1"}, "Leg.bonus", id="unknown key"),
        pytest.param(Leg, {"customer": "ada", "asset": "ETH"}, "Leg.change", id="missing key"),
        pytest.param(Leg, [LEG], "Leg", id="list for object"),
        pytest.param(Leg, None, "Leg", id="null for object"),
        pytest.param(Leg, {**LEG, "change": 5}, "Leg.change", id="JSON number"),
        pytest.param(Leg, {**LEG, "change": 5.0}, "Leg.change", id="float"),
        pytest.param(Leg, {**LEG, "change": True}, "Leg.change", id="bool as integer"),
        pytest.param(Leg, {**LEG, "change": None}, "Leg.change", id="null as integer"),
        pytest.param(Leg, {**LEG, "change": "5.0"}, "Leg.change", id="decimal point"),
        pytest.param(Leg, {**LEG, "change": "5e3"}, "Leg.change", id="exponent"),
        pytest.param(Leg, {**LEG, "change": "0x10"}, "Leg.change", id="hex integer"),
        pytest.param(Leg, {**LEG, "change": "+5"}, "Leg.change", id="plus sign"),
        pytest.param(Leg, {**LEG, "change": "05"}, "Leg.change", id="leading zero"),
        pytest.param(Leg, {**LEG, "change": "-0"}, "Leg.change", id="minus zero"),
        pytest.param(Leg, {**LEG, "change": " 5"}, "Leg.change", id="space before"),
        pytest.param(Leg, {**LEG, "change": "5\n"}, "Leg.change", id="newline after"),
        pytest.param(Leg, {**LEG, "change": "1_000"}, "Leg.change", id="underscore"),
        pytest.param(Leg, {**LEG, "change": "٥"}, "Leg.change", id="Arabic digit"),
        pytest.param(Leg, {**LEG, "change": "５"}, "Leg.change", id="full-width digit"),
        pytest.param(Leg, {**LEG, "change": ""}, "Leg.change", id="empty integer"),
        pytest.param(Leg, {**LEG, "change": str(2**255)}, "Leg.change", id="int256 over range"),
        pytest.param(Leg, {**LEG, "change": str(-(2**255) - 1)}, "Leg.change", id="int256 under range"),
        pytest.param(Leg, {**LEG, "change": "9" * 5000}, "Leg.change", id="5000 digits"),
        pytest.param(Leg, {**LEG, "asset": 7}, "Leg.asset", id="number as string"),
        pytest.param(Leg, {**LEG, "asset": None}, "Leg.asset", id="null as string"),
        pytest.param(Leg, {**LEG, "asset": "\ud800"}, "Leg.asset", id="lone surrogate"),
        pytest.param(Proposal, {**PROPOSAL, "amount": "-1"}, "Proposal.amount", id="uint256 negative"),
        pytest.param(Proposal, {**PROPOSAL, "amount": str(2**256)}, "Proposal.amount", id="uint256 over range"),
        pytest.param(Proposal, {**PROPOSAL, "expiry": str(2**64)}, "Proposal.expiry", id="uint64 over range"),
        pytest.param(SeatHead, {**HEAD, "head": HEAD["head"].upper()}, "SeatHead.head", id="0X prefix"),
        pytest.param(SeatHead, {**HEAD, "head": "0x" + "AB" * 32}, "SeatHead.head", id="uppercase hex"),
        pytest.param(SeatHead, {**HEAD, "head": "ab" * 32}, "SeatHead.head", id="no 0x"),
        pytest.param(SeatHead, {**HEAD, "head": "0x" + "ab" * 31}, "SeatHead.head", id="31 bytes"),
        pytest.param(SeatHead, {**HEAD, "head": "0x" + "ab" * 33}, "SeatHead.head", id="33 bytes"),
        pytest.param(SeatHead, {**HEAD, "head": "0x" + "ab" * 31 + "a"}, "SeatHead.head", id="odd number of digits"),
        pytest.param(SeatHead, {**HEAD, "head": ["0x"]}, "SeatHead.head", id="list as bytes"),
        pytest.param(IntentFacts, {**FACTS, "hold_stands": "false"}, "IntentFacts.hold_stands", id="string as bool"),
        pytest.param(IntentFacts, {**FACTS, "hold_stands": 0}, "IntentFacts.hold_stands", id="zero as bool"),
        pytest.param(IntentFacts, {**FACTS, "hold_stands": None}, "IntentFacts.hold_stands", id="null as bool"),
        pytest.param(Void, {**VOID, "intents": "0x"}, "Void.intents", id="string for list"),
        pytest.param(Void, {**VOID, "intents": {}}, "Void.intents", id="object for list"),
        pytest.param(Void, {**VOID, "intents": ["0x01"]}, "Void.intents[0]", id="short item in list"),
        pytest.param(Void, {**VOID, "anchor": []}, "Void.anchor", id="list for struct"),
        pytest.param(
            Void, {**VOID, "anchor": {**VOID["anchor"], "x": 1}}, "Void.anchor.x", id="unknown key in a nested struct"
        ),
    ],
)
def test_malformed_json_names_the_field(kind: type[Struct], data: object, field: str) -> None:
    """Each malformed value is refused at the place where it stands."""
    with pytest.raises(InvalidInput) as caught:
        kind.from_json(data)
    assert (caught.value.field, caught.value.rule) == (field, Rule.MALFORMED)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        pytest.param(Leg, ("ada", "ETH", 5.0), id="float"),
        pytest.param(Leg, ("ada", "ETH", True), id="bool as integer"),
        pytest.param(Leg, ("ada", b"ETH", 5), id="bytes as string"),
        pytest.param(Anchor, ("c", bytearray(32), "r"), id="bytearray as bytes32"),
        pytest.param(Anchor, ("c", bytes(31), "r"), id="31 bytes"),
        pytest.param(Anchor, ("c", "0x" + "00" * 32, "r"), id="hex text as bytes32"),
        pytest.param(Void, (Anchor("c", bytes(32), "r"), [bytes(32)]), id="list as tuple"),
        pytest.param(Void, ("anchor", ()), id="string as struct"),
    ],
)
def test_a_message_of_wrong_types_cannot_be_made(kind: type[Struct], arguments: tuple[Any, ...]) -> None:
    """The check stands in the constructor: no path makes a message that does not fit its own type."""
    with pytest.raises(InvalidInput):
        kind(*arguments)


def test_a_struct_of_another_type_does_not_pass_for_the_declared_one() -> None:
    """`Void.anchor` is an Anchor; another struct with the same JSON keys is refused."""
    with pytest.raises(InvalidInput):
        Void(Leg("ada", "ETH", 1), ())  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["0x" + "g" * 40, "0x" + "a" * 39, "0x" + "a" * 41, "0X" + "a" * 40, "a" * 42, ""])
def test_an_evm_address_has_40_hex_digits(address: str) -> None:
    """A Solidity `address` is refused where it is not one."""
    data = EXAMPLES["TransferIntent"].to_json()
    with pytest.raises(InvalidInput):
        type(EXAMPLES["TransferIntent"]).from_json({**data, "token": address})


def test_nested_places_are_named() -> None:
    """The field of a fault deep inside names its whole path."""
    data = EXAMPLES["Statement"].to_json()
    data["coverage"][0]["reserves"] = 1
    with pytest.raises(InvalidInput) as caught:
        Statement.from_json(data)
    assert caught.value.field == "Statement.coverage[0].reserves"


words = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
legs = st.builds(Leg, texts, texts, st.integers(-(2**255), 2**255 - 1))
anchors = st.builds(Anchor, texts, words, texts)
voids = st.builds(Void, anchors, st.lists(words, max_size=4).map(tuple))


@given(st.one_of(legs, anchors, voids))
def test_json_round_trip(message: Struct) -> None:
    """Every message survives JSON exactly, and so does its hash."""
    again = type(message).from_json(json.loads(json.dumps(message.to_json())))
    assert again == message
    assert again.struct_hash == message.struct_hash


@given(voids)
def test_plain_keccak_agrees_for_any_values(message: Void) -> None:
    """The second path agrees beyond the golden examples."""
    assert hash_struct("Void", message.to_json(), parse_types(encode_type(message))) == message.struct_hash


@given(legs, legs)
def test_equal_hashes_mean_equal_messages(one: Leg, other: Leg) -> None:
    """Two messages have one hash only if they are the same."""
    assert (one.struct_hash == other.struct_hash) == (one == other)


_ANYTHING: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**257), 2**257),
    st.sampled_from([-1, 0, 2**16 - 1, 2**16, 2**64 - 1, 2**64, 2**255 - 1, 2**255, -(2**255), 2**256 - 1, 2**256]),
    st.floats(),
    st.binary(max_size=40),
    st.binary(min_size=32, max_size=32),
    st.builds(bytearray, st.binary(max_size=3)),
    st.text(alphabet=st.characters(exclude_categories=()), max_size=10),
    st.from_regex(r"0x[0-9a-fA-F]{39,41}\n?", fullmatch=True),
    st.tuples(st.binary(min_size=31, max_size=32)),
    st.lists(st.binary(min_size=32, max_size=32), max_size=2),
    st.just(Anchor("eip155:1", ZERO32, "7")),
)


class TestMembers:
    """What a class works out once for its members says the same as the check that knows the words of every refusal."""

    @pytest.mark.parametrize(
        "kind",
        [
            *(pytest.param(kind, id=str(kind.__metadata__[0])) for kind in (Uint256, Int256, Uint64, Uint16)),
            pytest.param(Bytes32, id="bytes32"),
            pytest.param(Bytes, id="bytes"),
            pytest.param(EvmHex, id="address"),
            pytest.param(str, id="string"),
            pytest.param(bool, id="bool"),
            pytest.param(Anchor, id="struct"),
            pytest.param(tuple[Bytes32, ...], id="bytes32[]"),
            pytest.param(tuple[Anchor, ...], id="struct[]"),
        ],
    )
    @given(value=_ANYTHING)
    def test_the_quick_look_and_the_slow_one_agree(self, kind: Any, value: Any) -> None:
        """A value fits exactly where `_check` raises nothing: one more that fitted would be signed unchecked."""
        try:
            typed._check("field", kind, value)
            allowed = True
        except InvalidInput:
            allowed = False
        assert typed._fits(kind)(value) is allowed

    def test_the_hash_is_the_public_functions_own(self) -> None:
        """eth-account's `encode_typed_data` has the very same body for every example."""
        for message in EXAMPLES.values():
            whole = encode_typed_data(full_message=Domain(GENESIS).typed_data(message))
            assert whole.body == message.struct_hash
            assert whole.header == typed._separator(Domain(GENESIS))

    def test_keccak_is_the_quick_one(self) -> None:
        """Importing custody chooses it, whatever eth-hash would take by itself; an operator's own choice stands."""
        look = "import custody; from eth_hash.auto import keccak as k; k(b''); print(type(k.hasher.__self__).__name__)"
        for chosen, found in (({}, "PySha3Backend"), ({"ETH_HASH_BACKEND": "pycryptodome"}, "CryptodomeBackend")):
            kept = {name: value for name, value in os.environ.items() if name != "ETH_HASH_BACKEND"}
            done = subprocess.run([sys.executable, "-c", look], env=kept | chosen, capture_output=True, check=True)
            assert done.stdout.decode().strip() == found
