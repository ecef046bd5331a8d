# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the raw keys of seats' engines and looks for them in processes and files; a process of its own, so that it finds not itself.

`python -m tests.fakes.canary` with JSON on stdin: `servers` (url, shares), `pids`, `files`. Prints JSON: `keys` read, places
`searched`, and where a key was `found`. The servers must have been started with `raw_storage_endpoint`.
"""

import base64
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import pytest
import requests

from devnet import openbao

_READ: Final = 8 << 20
_PAGE: Final = 4096
_TAIL: Final = 256
"""Bytes of a piece that the next one begins with, since a key may lie across."""
_REGION: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r?)")
_PRESENT: Final = re.compile(r"(?:Rss|Swap): +([1-9][0-9]*) kB")


@contextmanager
def showing_root() -> Iterator[None]:
    """Servers started here show root their raw storage, so that a test knows what to look for. No deployment's do."""
    listener = "tls_disable = true"
    told = openbao._CONFIGURATION.replace(listener, f"{listener}\n  disable_unauthed_generate_root_endpoints = false")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openbao, "_CONFIGURATION", told + "raw_storage_endpoint = true\n")
        yield


def rooted(url: str, shares: Sequence[str]) -> requests.Session:
    """A session with a new root token, which unseal shares can make: what people in an installation hold."""
    session = requests.Session()
    session.trust_env = False

    def put(path: str, body: dict[str, str]) -> Any:
        answer = session.put(f"{url}/v1/sys/generate-root/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    session.delete(f"{url}/v1/sys/generate-root/attempt", timeout=30)
    begun = put("attempt", {})
    told: Any = {}
    for share in shares:
        told = put("update", {"key": share, "nonce": begun["nonce"]})
        if told["complete"]:
            break
    encoded = str(told["encoded_token"])
    raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    session.headers["X-Vault-Token"] = bytes(a ^ b for a, b in zip(raw, begun["otp"].encode(), strict=True)).decode()
    return session


def secrets_of(url: str, session: requests.Session) -> Iterator[bytes]:
    """Every wallet key and the identity of the engine mounted there, as they lie in its storage."""

    def raw(method: str, path: str) -> Any:
        answer = session.request(method, f"{url}/v1/sys/raw/logical/{path}", timeout=30)
        return answer.json()["data"] if answer.ok else {}

    for mount in raw("LIST", "").get("keys", ()):
        for key in raw("LIST", f"{mount}documents/keys").get("keys", ()):
            stored = raw("GET", f"{mount}documents/keys/{key}")["value"]
            yield bytes.fromhex(json.loads(stored.partition("\n")[2])["secret"])


def spellings(secret: bytes) -> list[bytes]:
    """A key as it could lie somewhere."""
    return [secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)]


def regions(pid: int) -> Iterator[tuple[int, int]]:
    """The readable regions of a process that have a page in memory or in swap; what is only reserved holds nothing."""
    at: tuple[int, int] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        region = _REGION.match(line)
        if region is not None:
            at = (int(region[1], 16), int(region[2], 16)) if region[3] else None
        elif at is not None and _PRESENT.match(line):
            yield at
            at = None


def memory(pid: int) -> Iterator[bytes]:
    """A process's readable memory, in overlapping pieces, and its environment."""
    yield Path(f"/proc/{pid}/environ").read_bytes()
    place = Path(f"/proc/{pid}")
    with (place / "mem").open("rb", buffering=0) as file, (place / "pagemap").open("rb", buffering=0) as pages:
        for start, end in regions(pid):
            tail = b""
            for at in range(start, end, _READ):  # none twice: reading a page makes it present
                size = min(_READ, end - at)
                piece = b""
                with suppress(OSError, ValueError):  # a page that cannot be read
                    if is_present(pages, at, size):
                        file.seek(at)
                        piece = file.read(size)
                if piece:
                    yield tail + piece
                tail = piece[-_TAIL:]


def is_present(pages: IO[bytes], at: int, size: int) -> bool:
    """Whether any page is in memory or in swap: some libraries reserve a hundred gigabytes of nothing in one region (kernel: pagemap)."""
    pages.seek(at // _PAGE * 8)
    return any(flags & 0xC0 for flags in set(pages.read(size // _PAGE * 8)[7::8]))


def main() -> None:
    """See the module."""
    asked = json.load(sys.stdin)
    secrets = [s for each in asked["servers"] for s in secrets_of(each["url"], rooted(each["url"], each["shares"]))]
    needles = [
        word for secret in secrets for word in spellings(secret)
    ]  # one by one: far quicker than a pattern of all
    found, searched = [], 0
    for pid in asked["pids"]:
        searched += 1
        found += [f"memory of {pid}" for piece in memory(pid) if any(word in piece for word in needles)]
    for name in asked["files"]:
        searched += 1
        content = Path(name).read_bytes()
        if any(word in content for word in needles):
            found.append(name)
    print(json.dumps({"keys": len(secrets), "searched": searched, "found": found}))


if __name__ == "__main__":
    main()
