# SPDX-License-Identifier: AGPL-3.0-or-later
"""A typed message read a second time, from EIP-712 type texts that are written out here, and its digest by eth-account's own encoder.

Nothing of `custody.rules.typed` is used: whoever changed how messages are read or hashed there would have to change it here as well.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

_KEY: Final = "Key(string scheme,bytes public)"
_ANCHOR: Final = "Anchor(string chain,bytes32 wallet,string reference)"
_TEXTS: Final = (
    ("Proposal(string reference,string account,string chain,string asset,uint256 amount,string destination,string purpose,"
    "uint64 expiry)"),
    ("TransferIntent(string id,bytes32 proposal,string chain,bytes32 wallet,bytes32 certificate,string asset,address token,"
    "uint16 decimals,uint256 amount,string account,string destination,string destinationKind,bytes32 enrolment,string purpose,"
    "uint256 maximumFee,string initiator,bytes32 policy,uint64 roster,uint64 notBefore,uint64 expiry)"),
    "Rejection(bytes32 intent,string reason)",
    "Freeze(string scope,string reason,uint64 fromTime,uint64 lapses)",
    "Unfreeze(bytes32 freeze,string reason,uint64 notBefore)",
    "Void(Anchor anchor,bytes32[] intents)" + _ANCHOR,
    "Rotation(bytes32 old,bytes32 new)",
    "Backup(bytes32 digest,uint64 time)",
    "PolicyActivation(bytes32 bundle,bytes32 previous,bytes32 diffReport,string author,uint64 notBefore)",
    "Enrolment(string chain,string address,string owner,string kind,bytes32 evidence,uint64 expiry)",
    ("ManualEntry(string id,string reason,ManualPosting[] postings)"
    "ManualPosting(string account,string asset,string side,uint256 units)"),
    "Login(string origin,bytes32 session,uint64 issued,uint64 expires)",
    "WalletCertificate(bytes32 previous,string label,string tier,string chain,uint16 m,uint16 n,SeatKey[] seats,"
    "SafeParameters[] safe,BitcoinScript[] script,uint64 birth)BitcoinScript(string descriptor)" + _KEY +
    "SafeParameters(address singleton,bytes32 singletonCode,address factory,bytes32 factoryCode,address handler,"
    "bytes32 handlerCode,address multisend,bytes32 multisendCode,bytes32 proxyCreationCode,bytes initializer,uint256 salt,"
    "address address)SeatKey(WalletKey key,Signature signature)Signature(Key key,bytes value)"
    "WalletKey(string seat,string label,string chain,bytes public,string xpub)",
    "RosterVersion(uint64 version,bytes32 previous,string[] chains,string clock,Person[] people,ApiClient[] clients,"
    "string[] addressAuthorities,string[] policyOwners,PriceFeeder[] feeders,Key attestor,RosterSeat[] seats,Relayer[] relayers,"
    "Thresholds thresholds,uint64 delay,uint64 notBefore)ApiClient(string id,Key key,string[] scopes,string role,uint64 expires)"
    + _KEY + "Person(string id,string name,string[] groups,Key[] keys,bool[] displays,uint64 expires)"
    "PriceFeeder(string id,Key key)Relayer(string chain,address address,uint256 cap)"
    "RosterSeat(string id,string operator,string organisation,Key identity,bool cold)"
    "Thresholds(uint16 roster,uint16 certificate,uint16 policy,uint16 manualEntry,uint16 void,uint16 unfreeze)",
)  # fmt: skip
"""EIP-712 encodeType of everything that people sign."""
TEXTS: Final[Mapping[str, str]] = {text.partition("(")[0]: text for text in _TEXTS}

_STRUCT: Final = re.compile(r"([A-Za-z]+)\(([^)]*)\)")
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,77}")
_OCTETS: Final = re.compile(r"0x(?:[0-9a-f]{2})*")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")

Fields = Mapping[str, Any]
"""A struct's members by their EIP-712 names: int, bytes, str, bool, lists and structs of these."""


@dataclass(frozen=True)
class Message:
    """A message as somebody wrote it down, whole: its type's name and every field."""

    kind: str
    fields: Fields

    def digest(self, genesis: bytes) -> bytes:
        """The 32 bytes that are signed in the deployment of this genesis."""
        signable = self._signable(genesis)
        return bytes(keccak(b"\x19" + signable.version + signable.header + signable.body))

    @cached_property
    def hash(self) -> bytes:
        """hashStruct: what other messages name it by, and of a first roster version genesis itself."""
        return bytes(self._signable(bytes(32)).body)

    def _signable(self, genesis: bytes) -> Any:  # noqa: ANN401  # eth-account's own tuple
        structs = _structs(TEXTS[self.kind])
        domain = [{"name": name, "type": kind} for kind, name in _DOMAIN]
        types = {"EIP712Domain": domain} | {
            struct: [{"name": name, "type": kind} for kind, name in members] for struct, members in structs.items()
        }
        return encode_typed_data(
            full_message={
                "types": types,
                "primaryType": self.kind,
                "domain": {"name": "Bulkhead", "version": "1", "salt": genesis},
                "message": self.fields,
            }
        )


_DOMAIN: Final = (("string", "name"), ("string", "version"), ("bytes32", "salt"))


def read(data: object, field: str = "message") -> Message:
    """A message out of `{"type", "message"}`, with signatures beside it or without. Raises InvalidInput naming what is wrong."""
    if not isinstance(data, dict) or not {"type", "message"} <= set(data) <= {"type", "message", "signatures"}:
        raise InvalidInput(field, Rule.MALFORMED, "another shape", "an object of type and message")
    kind = data["type"]
    if not isinstance(kind, str) or kind not in TEXTS:
        raise InvalidInput(f"{field}.type", Rule.MALFORMED, repr(kind)[:80], "one of " + ", ".join(TEXTS))
    return Message(kind, _struct(kind, data["message"], _structs(TEXTS[kind]), f"{field}.{kind}"))


def _structs(text: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Every struct of an encodeType text with its members, type before name."""
    return {
        name: tuple((kind, member) for kind, member in (each.split(" ") for each in members.split(",")))
        for name, members in _STRUCT.findall(text)
    }


def _struct(name: str, data: object, structs: Mapping[str, tuple[tuple[str, str], ...]], where: str) -> dict[str, Any]:
    members = {_snake(member): (kind, member) for kind, member in structs[name]}
    if not isinstance(data, dict) or set(data) != set(members):
        odd = sorted({str(key) for key in data} ^ set(members)) if isinstance(data, dict) else [type(data).__name__]
        raise InvalidInput(where, Rule.MALFORMED, ", ".join(odd)[:200], "exactly " + ", ".join(members))
    return {member: _value(kind, data[key], structs, f"{where}.{key}") for key, (kind, member) in members.items()}


def _snake(camel: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()


def _value(kind: str, data: object, structs: Mapping[str, tuple[tuple[str, str], ...]], where: str) -> Any:  # noqa: ANN401
    if kind.endswith("[]"):
        if not isinstance(data, list):
            raise InvalidInput(where, Rule.MALFORMED, type(data).__name__, "a list")
        return [_value(kind[:-2], item, structs, f"{where}[{place}]") for place, item in enumerate(data)]
    if kind in structs:
        return _struct(kind, data, structs, where)
    if kind.startswith("uint"):
        if not isinstance(data, str) or _WHOLE.fullmatch(data) is None or not 0 <= int(data) < 2 ** int(kind[4:]):
            raise InvalidInput(where, Rule.MALFORMED, repr(data)[:100], f"a decimal {kind} in a string")
        return int(data)
    if kind in {"bytes", "bytes32"}:
        if not isinstance(data, str) or _OCTETS.fullmatch(data) is None or (kind == "bytes32" and len(data) != 66):
            raise InvalidInput(where, Rule.MALFORMED, repr(data)[:100], f"{kind} as 0x and lower-case hex digits")
        return bytes.fromhex(data[2:])
    if kind == "address":
        if not isinstance(data, str) or _ADDRESS.fullmatch(data) is None:
            raise InvalidInput(where, Rule.MALFORMED, repr(data)[:100], "0x and 40 hex digits")
        return data
    if kind == "bool":
        if not isinstance(data, bool):
            raise InvalidInput(where, Rule.MALFORMED, repr(data)[:100], "true or false")
        return data
    return _text(data, where)


def _text(data: object, where: str) -> str:
    try:
        if isinstance(data, str) and len(data.encode()) <= 65_536:
            return data
    except UnicodeEncodeError:  # JSON can spell half a character; what is hashed is UTF-8, which cannot
        pass
    raise InvalidInput(where, Rule.MALFORMED, repr(data)[:100], "text")
