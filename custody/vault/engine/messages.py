# SPDX-License-Identifier: AGPL-3.0-or-later
"""The protobuf messages that a plugin and OpenBao exchange, made at import from tables: no compiler, no generated files.

Only the fields that are read or written here stand in the tables; protobuf keeps or drops the others as its rules say. Numbers
are those of go-plugin's and OpenBao's own `.proto` files (docs/vault-engine.md names them).
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
}
_PACKAGE: Final = "bulkhead.wire"

Fields = Mapping[str, tuple[int, str]]
"""A field's name to its number and type; `*` before a type is a list of it, `map` one from text to text."""

MESSAGES: Final[Mapping[str, Fields]] = {
    "Empty": {},
    # go-plugin: GRPCBroker, GRPCController
    "Knock": {"knock": (1, "bool"), "ack": (2, "bool"), "error": (3, "string")},
    "ConnInfo": {
        "service_id": (1, "uint32"),
        "network": (2, "string"),
        "address": (3, "string"),
        "knock": (4, "Knock"),
    },
    "HealthCheckRequest": {"service": (1, "string")},
    "HealthCheckResponse": {"status": (1, "int32")},
    "MultiplexingSupportResponse": {"supported": (1, "bool")},
    "VersionReply": {"plugin_version": (1, "string")},
    # OpenBao: pb.Backend
    "ProtoError": {"err_type": (1, "uint32"), "err_msg": (2, "string"), "err_code": (3, "int64")},
    "Request": {"id": (1, "string"), "operation": (3, "string"), "path": (4, "string"), "data": (5, "string")},
    "Response": {"data": (3, "string")},
    "Paths": {"root": (1, "*string"), "unauthenticated": (2, "*string")},
    "HandleRequestArgs": {"request": (2, "Request")},
    "HandleRequestReply": {"response": (1, "Response"), "err": (2, "ProtoError")},
    "InitializeReply": {"err": (1, "ProtoError")},
    "SpecialPathsReply": {"paths": (1, "Paths")},
    "HandleExistenceCheckReply": {"check_found": (1, "bool"), "exists": (2, "bool"), "err": (3, "ProtoError")},
    "SetupArgs": {"broker_id": (1, "uint32"), "config": (2, "map")},
    "SetupReply": {"err": (1, "string")},
    "TypeReply": {"type": (1, "uint32")},
    "InvalidateKeyArgs": {"key": (1, "string")},
    # OpenBao: pb.Storage
    "StorageEntry": {"key": (1, "string"), "value": (2, "bytes")},
    "StorageListArgs": {"prefix": (1, "string")},
    "StorageListReply": {"keys": (1, "*string"), "err": (2, "string")},
    "StorageGetArgs": {"key": (1, "string"), "txn": (2, "string")},
    "StorageGetReply": {"entry": (1, "StorageEntry"), "err": (2, "string")},
    "StoragePutArgs": {"entry": (1, "StorageEntry"), "txn": (2, "string")},
    "StoragePutReply": {"err": (1, "string")},
    "StorageIsTransactionalReply": {"transactional": (1, "bool")},
    "StorageBeginTxReply": {"txn": (1, "string"), "err": (2, "string")},
    "StorageTxArgs": {"txn": (1, "string")},
    "StorageTxReply": {"err": (1, "string")},
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="bulkhead/wire.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
            if kind == "map":
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                for part, place in (("key", 1), ("value", 2)):
                    entry.field.add(name=part, number=place, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
                made.label, made.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
                made.type_name = f".{_PACKAGE}.{name}.{entry.name}"
                continue
            if kind.startswith("*"):
                made.label, kind = _Field.LABEL_REPEATED, kind[1:]  # noqa: PLW2901  # the type without its star
            if kind in _SCALARS:
                made.type = _SCALARS[kind]
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    found = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


_CLASSES: Final = _classes()


def message(name: str) -> Any:  # noqa: ANN401 - a class that protobuf made
    """A message's class; raises KeyError for one that no table has."""
    return _CLASSES[name]
