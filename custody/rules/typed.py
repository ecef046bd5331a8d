# SPDX-License-Identifier: AGPL-3.0-or-later
"""Typed messages: frozen dataclasses that are EIP-712 structs, and their one JSON form.

A message class derives from `Struct`. A field's annotation is its Solidity type; `tuple[X, ...]` is `X[]`; another Struct
is a nested struct. Names turn from snake_case to camelCase in the EIP-712 type, which is what a hardware wallet shows.
A type's hash is eth-account's (EIP-712). Values are packed here, a word for each member: eth-account works out anew for every message
what its class says once, which takes ten times as long, and a seat hashes hundreds for one batch. Its whole encoding, and another one
written from the EIP's text, are what the tests hold this against.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Final, Self, get_args, get_origin, get_type_hints

from eth_account._utils.encode_typed_data.encoding_and_hashing import hash_type
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

Uint256 = Annotated[int, "uint256"]
Int256 = Annotated[int, "int256"]
Uint64 = Annotated[int, "uint64"]
Uint16 = Annotated[int, "uint16"]
Bytes32 = Annotated[bytes, "bytes32"]
Bytes = Annotated[bytes, "bytes"]
EvmHex = Annotated[str, "address"]

ZERO32: Final = bytes(32)
ZERO_ADDRESS: Final = "0x" + "00" * 20
_RANGES: Final = {
    "uint256": (0, 2**256 - 1),
    "int256": (-(2**255), 2**255 - 1),
    "uint64": (0, 2**64 - 1),
    "uint16": (0, 2**16 - 1),
}
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,77}")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_OCTETS: Final = re.compile(r"0x(?:[0-9a-f]{2})*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


_STRUCT_HASH: Final = attrgetter("struct_hash")


class _Hashed:
    """Room for a message's own hashStruct beside its fields: it never changes, and is asked for again and again."""

    __slots__ = ("_struct_hash",)
    _struct_hash: bytes


@dataclass(frozen=True, slots=True)
class Struct(_Hashed):
    """Base of every typed message and of the structs inside one."""

    def __post_init__(self) -> None:
        for each in _members(type(self)):
            value = getattr(self, each.name)
            if not each.fits(value):
                _check(f"{type(self).__name__}.{each.name}", each.kind, value)

    @property
    def struct_hash(self) -> bytes:
        """EIP-712 hashStruct of this message, keccak256(typeHash encodeData): 32 bytes, the same in every deployment."""
        try:
            return self._struct_hash
        except AttributeError:
            cls = type(self)
            words = [each.word(getattr(self, each.name)) for each in _members(cls)]
            found = bytes(keccak(_type_hash(cls) + b"".join(words)))
            object.__setattr__(self, "_struct_hash", found)
            return found

    def to_json(self) -> dict[str, Any]:
        """The one JSON form: integers as decimal strings, bytes as 0x hex, structs as objects, arrays as lists."""
        return {each.name: each.dump(getattr(self, each.name)) for each in _members(type(self))}

    @classmethod
    def from_json(cls, data: object, field: str = "") -> Self:
        """Read the JSON form; a missing or unknown key, or a value of the wrong shape, raises InvalidInput naming it."""
        where = field or cls.__name__
        if not isinstance(data, dict):
            raise InvalidInput(where, Rule.MALFORMED, type(data).__name__, "an object")
        schema = _schema(cls)
        for odd in sorted(set(data) ^ set(schema)) if data.keys() != schema.keys() else ():
            problem = ("missing", "this key") if odd in schema else ("an unknown key", "one of " + ", ".join(schema))
            raise InvalidInput(f"{where}.{odd}", Rule.MALFORMED, *problem)
        return cls(*(each.load(where, data[each.name]) for each in _members(cls)))


@dataclass(frozen=True, slots=True)
class Domain:
    """The EIP-712 domain of one deployment; its salt is genesis, so nothing signed here means anything elsewhere."""

    NAME: ClassVar[str] = "Bulkhead"
    VERSION: ClassVar[str] = "1"

    genesis: bytes

    def digest(self, message: Struct) -> bytes:
        """The 32 bytes that are signed for a message: keccak256(0x19 0x01 domainSeparator hashStruct)."""
        return bytes(keccak(b"\x19\x01" + _separator(self) + message.struct_hash))

    def typed_data(self, message: Struct) -> dict[str, Any]:
        """The full EIP-712 JSON of a message, as a wallet's `eth_signTypedData_v4` takes it."""
        return {
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "salt", "type": "bytes32"},
                ],
                **_types(type(message)),
            },
            "primaryType": type(message).__name__,
            "domain": {"name": self.NAME, "version": self.VERSION, "salt": self.genesis},
            "message": _typed_value(message),
        }


def _type_hash(cls: type[Struct]) -> bytes:
    if cls not in _TYPE_HASHES:
        _TYPE_HASHES[cls] = bytes(hash_type(cls.__name__, _types(cls)))
    return _TYPE_HASHES[cls]


@lru_cache(maxsize=16)
def _separator(domain: Domain) -> bytes:
    """hashStruct of the domain: any message has it as header, so the smallest one is asked."""
    return bytes(encode_typed_data(full_message=domain.typed_data(_Nothing(ZERO32))).header)


@dataclass(frozen=True, slots=True)
class _Nothing(Struct):
    zero: Bytes32


def camel(name: str) -> str:
    """snake_case to camelCase."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_SCHEMAS: Final[dict[type, dict[str, Any]]] = {}
_TYPES: Final[dict[type, dict[str, list[dict[str, str]]]]] = {}
_TYPE_HASHES: Final[dict[type, bytes]] = {}


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of a message class with what its annotation asks for, worked out once for the class."""

    name: str
    camel: str
    kind: Any
    fits: Callable[[Any], bool]
    """True only where `_check`, which knows the words for every refusal, would say nothing."""
    dump: Callable[[Any], Any]
    load: Callable[[str, Any], Any]
    word: Callable[[Any], bytes]
    """The 32 bytes that stand for a value in encodeData (EIP-712)."""
    plain: bool
    """Neither a struct nor an array, so that it goes into typed data as it is."""


_MEMBERS: Final[dict[type, tuple[_Member, ...]]] = {}


def _members(cls: type[Struct]) -> tuple[_Member, ...]:
    found = _MEMBERS.get(cls)
    if found is None:
        found = tuple(_member(name, kind) for name, kind in _schema(cls).items())
        _MEMBERS[cls] = found
    return found


def _member(name: str, kind: Any) -> _Member:
    array = get_origin(kind) is tuple
    plain = not array and _solidity(kind) in _PLAIN
    dump = _DUMPS.get(_solidity(kind), _as_it_is) if plain else _dump
    return _Member(name, camel(name), kind, _fits(kind), dump, _loads(name, kind), _word(kind), plain)


def _word(kind: Any) -> Callable[[Any], bytes]:
    if get_origin(kind) is tuple:
        inner = _word(get_args(kind)[0])
        return lambda value: bytes(keccak(b"".join(map(inner, value))))
    solidity = _solidity(kind)
    return _WORDS.get(solidity, _integer if solidity in _RANGES else _STRUCT_HASH)


def _integer(value: int) -> bytes:
    return (value % 2**256).to_bytes(32)  # two's complement below zero


_WORDS: Final[dict[str, Callable[[Any], bytes]]] = {
    "bytes32": bytes,
    "bytes": lambda value: bytes(keccak(value)),
    "string": lambda value: bytes(keccak(value.encode())),
    "bool": lambda value: int(value).to_bytes(32),
    "address": lambda value: bytes.fromhex(value[2:]).rjust(32, b"\0"),
}


def _fits(kind: Any) -> Callable[[Any], bool]:
    if get_origin(kind) is tuple:
        inner = _fits(get_args(kind)[0])
        return lambda value: type(value) is tuple and all(map(inner, value))
    solidity = _solidity(kind)
    if solidity in _RANGES:
        low, high = _RANGES[solidity]
        return lambda value: type(value) is int and low <= value <= high
    return _FITS.get(solidity, lambda value: isinstance(value, kind))


def _is_address(value: Any) -> bool:
    return type(value) is str and _ADDRESS.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and (value.isascii() or _SURROGATE.search(value) is None)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "bytes32": lambda value: type(value) is bytes and len(value) == 32,
    "bytes": lambda value: type(value) is bytes,
    "address": _is_address,
    "string": _is_text,
    "bool": lambda value: isinstance(value, bool),
}
_PLAIN: Final = {*_RANGES, *_FITS}


def _as_it_is(value: Any) -> Any:
    return value


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


_DUMPS: Final[dict[str, Callable[[Any], Any]]] = {**dict.fromkeys(_RANGES, str), "bytes32": _hex, "bytes": _hex}


def _loads(name: str, kind: Any) -> Callable[[str, Any], Any]:
    solidity = _solidity(kind)

    def integer(where: str, value: Any) -> Any:
        if isinstance(value, str) and _INTEGER.fullmatch(value) is not None:
            return int(value)
        return _load(f"{where}.{name}", kind, value)

    def octets(where: str, value: Any) -> Any:
        if isinstance(value, str) and _OCTETS.fullmatch(value) is not None:
            return bytes.fromhex(value[2:])
        return _load(f"{where}.{name}", kind, value)

    def whatever(where: str, value: Any) -> Any:
        return _load(f"{where}.{name}", kind, value)

    if solidity in _RANGES:
        return integer
    if solidity in ("bytes", "bytes32"):
        return octets
    return (lambda _, value: value) if solidity in _PLAIN else whatever


def _schema(cls: type[Struct]) -> dict[str, Any]:
    if cls not in _SCHEMAS:
        hints = get_type_hints(cls, include_extras=True)
        _SCHEMAS[cls] = {f.name: hints[f.name] for f in fields(cls)}
    return _SCHEMAS[cls]


def _solidity(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return _solidity(get_args(kind)[0]) + "[]"
    if get_origin(kind) is Annotated:
        return str(kind.__metadata__[0])
    if kind in (str, bool):
        return {str: "string", bool: "bool"}[kind]
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind.__name__
    raise TypeError(f"no Solidity type for {kind!r}")


def _types(cls: type[Struct]) -> dict[str, list[dict[str, str]]]:
    if cls in _TYPES:
        return _TYPES[cls]
    found: dict[str, list[dict[str, str]]] = {cls.__name__: []}
    for name, kind in _schema(cls).items():
        found[cls.__name__].append({"name": camel(name), "type": _solidity(kind)})
        inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if isinstance(inner, type) and issubclass(inner, Struct):
            found |= _types(inner)
    _TYPES[cls] = found
    return found


def _typed_value(value: Any) -> Any:
    if isinstance(value, Struct):
        return {
            each.camel: getattr(value, each.name) if each.plain else _typed_value(getattr(value, each.name))
            for each in _members(type(value))
        }
    if isinstance(value, tuple):
        return [_typed_value(item) for item in value]
    return value


def _check(where: str, kind: Any, value: Any) -> None:
    if get_origin(kind) is tuple:
        if type(value) is not tuple:
            raise InvalidInput(where, Rule.MALFORMED, type(value).__name__, "a tuple")
        for position, item in enumerate(value):
            _check(f"{where}[{position}]", get_args(kind)[0], item)
        return
    solidity = _solidity(kind)
    if solidity in _RANGES:
        low, high = _RANGES[solidity]
        if type(value) is not int or not low <= value <= high:
            raise InvalidInput(where, Rule.MALFORMED, repr(value), f"an integer that fits {solidity}")
    elif solidity in ("bytes32", "bytes"):
        if type(value) is not bytes or (solidity == "bytes32" and len(value) != 32):
            raise InvalidInput(where, Rule.MALFORMED, repr(value), solidity)
    elif solidity == "address":
        if type(value) is not str or _ADDRESS.fullmatch(value) is None:
            raise InvalidInput(where, Rule.MALFORMED, repr(value), "0x and 40 hex digits")
    elif not isinstance(value, {"string": str, "bool": bool}.get(solidity, kind)):
        raise InvalidInput(where, Rule.MALFORMED, repr(value), solidity)
    elif solidity == "string" and _SURROGATE.search(value):  # JSON can spell one; UTF-8, which is hashed, cannot
        raise InvalidInput(where, Rule.MALFORMED, repr(value), "text without a lone surrogate")


def _dump(value: Any) -> Any:
    if isinstance(value, Struct):
        return value.to_json()
    if isinstance(value, tuple):
        return [_dump(item) for item in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if type(value) is int:
        return str(value)
    return value


def _load(where: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InvalidInput(where, Rule.MALFORMED, type(value).__name__, "a list")
        return tuple(_load(f"{where}[{i}]", get_args(kind)[0], item) for i, item in enumerate(value))
    solidity = _solidity(kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind.from_json(value, where)
    if solidity in _RANGES:
        if not isinstance(value, str) or _INTEGER.fullmatch(value) is None:
            raise InvalidInput(where, Rule.MALFORMED, repr(value), "a decimal integer in a string")
        return int(value)
    if solidity in ("bytes", "bytes32"):
        if not isinstance(value, str) or _OCTETS.fullmatch(value) is None:
            raise InvalidInput(where, Rule.MALFORMED, repr(value), "0x and lower-case hex digits")
        return bytes.fromhex(value[2:])
    return value
