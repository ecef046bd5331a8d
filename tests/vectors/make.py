# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writes typed_messages.json anew: `.venv/bin/python -m tests.vectors.make`. Read its diff as a change of protocol."""

import json
from pathlib import Path
from typing import Any, Final

from custody.rules.typed import Domain, Struct
from tests.vectors.examples import EXAMPLES, GENESIS

FILE: Final = Path(__file__).with_name("typed_messages.json")


def encode_type(message: Struct) -> str:
    """EIP-712 encodeType: the primary type, then the types it uses in alphabetical order."""
    types = dict(Domain(GENESIS).typed_data(message)["types"])
    del types["EIP712Domain"]
    primary = type(message).__name__
    ordered = [primary, *sorted(types.keys() - {primary})]
    members = {name: ",".join(f"{field['type']} {field['name']}" for field in types[name]) for name in ordered}
    return "".join(f"{name}({members[name]})" for name in ordered)


def vector(name: str, message: Struct) -> dict[str, Any]:
    """One vector: everything that another implementation needs to check itself against this one."""
    return {
        "name": name,
        "encode_type": encode_type(message),
        "json": message.to_json(),
        "struct_hash": "0x" + message.struct_hash.hex(),
        "digest": "0x" + Domain(GENESIS).digest(message).hex(),
    }


def main() -> None:
    """Write the file."""
    body = {
        "domain": {"name": Domain.NAME, "version": Domain.VERSION, "salt": "0x" + GENESIS.hex()},
        "vectors": [vector(name, message) for name, message in EXAMPLES.items()],
    }
    FILE.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
