# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where this deployment's parts are: one JSON file in its home folder, read once at start-up and handed on as a value.

The file holds addresses and paths, no key and nothing that widens what anybody may do.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

FILE: Final = "bulkhead.json"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One node: its URL, and for bitcoind the cookie file."""

    url: str
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class PartSettings:
    """Who has a key: a process behind a unix socket, with the AppRole file of its own OpenBao that it alone reads.

    With a `mount` it is a seat's engine inside that OpenBao, reached at the AppRole file's address; there is no socket then.
    """

    socket: str
    approle: str
    mount: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `bootstrap` composes from. `nodes` is the watcher's, `attestor_nodes` the attestor's own."""

    home: Path
    database: str
    bundle: str
    nodes: Mapping[str, NodeSettings]
    attestor_nodes: Mapping[str, tuple[NodeSettings, ...]]
    seats: Mapping[str, PartSettings]
    attestor: PartSettings
    relayer: PartSettings
    safe_contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per EVM chain: where the Safe contracts are, with their code hashes (custody/chains/evm/deploy.py)."""
    attestor_database: str = ""
    """The attestor's own database login where the engine has roles (PostgreSQL); empty: the same, opened read-only."""

    @property
    def deriver_socket(self) -> str:
        """Where the deriver listens: beside the attestor, for it has no key of its own to have settings about."""
        return str(Path(self.attestor.socket).with_name("deriver.sock"))

    def save(self) -> None:
        """Write the file atomically, readable by its owner alone."""
        body = asdict(self)
        body.pop("home")
        target = self.home / FILE
        fresh = target.with_suffix(".fresh")
        fresh.write_text(json.dumps(body, indent=1) + "\n", encoding="ascii")
        fresh.chmod(0o600)
        fresh.replace(target)

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read a home folder's file; raises InvalidInput where there is none or it is not whole."""
        path = home / FILE
        try:
            body = json.loads(path.read_text(encoding="ascii"))
            return cls(
                home=home,
                database=body["database"],
                bundle=body["bundle"],
                nodes={chain: NodeSettings(**node) for chain, node in body["nodes"].items()},
                attestor_nodes={
                    chain: tuple(NodeSettings(**node) for node in nodes)
                    for chain, nodes in body["attestor_nodes"].items()
                },
                seats={name: PartSettings(**part) for name, part in body["seats"].items()},
                attestor=PartSettings(**body["attestor"]),
                relayer=PartSettings(**body["relayer"]),
                safe_contracts=body["safe_contracts"],
                attestor_database=body.get("attestor_database", ""),
            )
        except FileNotFoundError as error:
            want = "a deployment's home; run `bulkhead devnet up` for a local one, or name one with --home"
            raise InvalidInput("home", Rule.MALFORMED, f"no {FILE} in it", want) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(FILE, Rule.MALFORMED, str(error), "every key of custody/settings.py") from error


def home_folder(given: str | None) -> Path:
    """The home: what was given, else BULKHEAD_HOME, else `.bulkhead` of the current folder."""
    return Path(given or os.environ.get("BULKHEAD_HOME") or ".bulkhead").absolute()
