# SPDX-License-Identifier: AGPL-3.0-or-later
"""A backup: one file with everything public that recovery needs, and its check from genesis on, with no network (docs/recovery.md).

It holds no secret and gives no right. What it is for: to know, when every machine is gone, which addresses hold the coins and by
which scripts, Safes, indices and public keys they open; the keys themselves are the seats', and come back by their own ways.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from custody.bootstrap import Deployment
from custody.chains.addresses import ChainDeriver
from custody.chains.scripts import check_script
from custody.flows.inventory import Inventory, check_binding
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, certificates_from, rosters_from
from custody.flows.ports import Damaged, UnitOfWork
from custody.governing import SIGHT, bundle_of, sights
from custody.parts import attestor
from custody.rules.attested import verify_signature
from custody.rules.backups import Backup
from custody.rules.certificates import DepositAddress, Enrolment, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.governance import PolicyActivation
from custody.rules.json_text import read_json
from custody.rules.ledger import canonical
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signature, Signed
from custody.rules.statements import Statement
from custody.rules.typed import ZERO32
from policies.bundle import Bundle
from policies.succession import walk

FORMAT: Final = "bulkhead-backup-v1"
_LISTS: Final = ("rosters", "certificates", "bindings", "enrolments", "activations", "bundles", "sights")
_FIELDS: Final = {"format", "genesis", "time", "ledger", "statement", *_LISTS}
_LINES: Final = 500


@dataclass(frozen=True, slots=True)
class Checked:
    """What a backup holds, once everything in it was verified."""

    digest: bytes
    inventory: Inventory
    roster: Roster
    counts: Mapping[str, int]
    signers: tuple[str, ...]


def compose(deployment: Deployment, now: int | None = None) -> dict[str, Any]:
    """Everything public of a deployment, and a statement made just now, whose heads say how far it goes.

    Raises Unavailable where the attestor is silent, Refused where the mirror or the ledger does not hold.
    """
    statement = attestor(deployment.settings).statement()
    deployment.inventory()

    def read(work: UnitOfWork) -> dict[str, Any]:
        head = work.journal.head()
        return {
            "format": FORMAT,
            "genesis": "0x" + deployment.genesis.hex(),
            "time": str(int(time.time()) if now is None else now),
            "ledger": {"position": str(head.position), "head": "0x" + head.hash.hex()},
            "statement": statement.to_json(),
            "rosters": [dict(row) for row in work.documents.all(ROSTER)],
            "certificates": [dict(row) for row in work.documents.all(CERTIFICATE)],
            "bindings": [signed.to_json() for signed in work.customers.addresses()],
            "enrolments": [signed.to_json() for signed in _enrolments(work)],
            "activations": [dict(row) for row in work.documents.all(ACTIVATION)],
            "bundles": [dict(row) for row in work.documents.all(BUNDLE)],
            "sights": [dict(row) for row in work.documents.all(SIGHT)],
        }

    return deployment.store.read(read)


def _enrolments(work: UnitOfWork) -> Iterator[Signed[Enrolment]]:
    after = 0
    while page := work.enrolments.examine(after, _LINES):
        for after, found in page:  # noqa: B007  # the last number is where the next page begins
            if isinstance(found, Damaged):
                raise Refused([found.why])
            yield found.enrolment


def digest_of(body: Mapping[str, Any]) -> bytes:
    """SHA-256 of the canonical body: what is printed, compared over the telephone, and signed."""
    return sha256(b"bulkhead backup v1\x00" + canonical(dict(body))).digest()


def message_of(body: Mapping[str, Any]) -> Backup:
    """What somebody signs of it."""
    return Backup(digest_of(body), int(str(body["time"])))


def read_backup(path: Path) -> tuple[dict[str, Any], tuple[Signature, ...]]:
    """A backup file's body and the signatures over it. Raises InvalidInput."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(path.name, Rule.MALFORMED, type(error).__name__, "a readable backup") from error
    whole = read_json(text, path.name)
    body = whole.get("backup") if isinstance(whole, dict) else None
    made = whole.get("signatures") if isinstance(whole, dict) else None
    if not isinstance(whole, dict) or set(whole) != {"backup", "signatures"} or not isinstance(made, list):
        raise InvalidInput(path.name, Rule.MALFORMED, "another shape", "backup and signatures")
    if not isinstance(body, dict) or set(body) != _FIELDS or body["format"] != FORMAT:
        raise InvalidInput(path.name, Rule.MALFORMED, "another shape", f"{FORMAT}: " + ", ".join(sorted(_FIELDS)))
    lists = [body[name] for name in _LISTS]
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in lists):
        raise InvalidInput(path.name, Rule.MALFORMED, "another shape", "lists of objects")
    return body, tuple(Signature.from_json(each) for each in made)


def verify(body: Mapping[str, Any], signatures: tuple[Signature, ...], genesis: bytes) -> Checked:
    """Everything from genesis on: rosters, certificates and their scripts, bindings, enrolments, bundles, statement, signers.

    `genesis` is what the reader was told, never the file's word. Raises Refused with every reason, InvalidInput.
    """
    if body["genesis"] != "0x" + genesis.hex():
        raise Refused([Refusal(Rule.WRONG_GENESIS, got=body["genesis"], want="0x" + genesis.hex())])
    statement = Signed.from_json(Statement, body["statement"])
    now = max(int(str(body["time"])), statement.message.time)
    rosters = rosters_from(body["rosters"], genesis, now)
    roster = rosters[-1]
    lines = certificates_from(body["certificates"], roster)
    bindings = [Signed.from_json(DepositAddress, row) for row in body["bindings"]]
    refusals = [
        r for line in lines.values() for signed in line for r in _check_scripts(signed.message, line[0].message)
    ]
    refusals += [refusal for binding in bindings for refusal in check_binding(binding, roster)]
    refusals += _check_enrolments([Signed.from_json(Enrolment, row) for row in body["enrolments"]], rosters)
    refusals += verify_signature(statement, roster)
    refusals += _check_heads(body, statement.message)
    refusals += _check_bundles(body, rosters, now, statement.message.policy)
    if refusals:
        raise Refused(refusals)
    inventory = Inventory([signed for line in lines.values() for signed in line], bindings, ChainDeriver())
    counts = {name: len(body[name]) for name in _LISTS if name != "sights"}
    signed = Signed(message_of(body), signatures)
    by_key = {key: person.id for person in roster.version.people for key in person.keys}
    signers = tuple(sorted({by_key[key] for key in signed.signers(roster.domain) if key in by_key}))
    if len(signed.signers(roster.domain)) != len(signatures):
        raise Refused([Refusal(Rule.SIGNATURE_INVALID, document="Backup", signatures=len(signatures))])
    return Checked(digest_of(body), inventory, roster, counts, signers)


def _check_scripts(certificate: WalletCertificate, birth: WalletCertificate) -> Iterator[Refusal]:
    """Derived again from the keys; after a rotation a Safe is its birth's."""
    if certificate.previous == ZERO32 or certificate.script:
        yield from check_script(certificate)
    elif certificate.safe != birth.safe:
        yield Refusal(Rule.SCRIPT_MISMATCH, label=certificate.label, want=birth.safe[0].address)


def _check_enrolments(enrolments: list[Signed[Enrolment]], rosters: tuple[Roster, ...]) -> Iterator[Refusal]:
    """An authority of some version signed each; that one lapsed since is no fault of the file."""
    for signed in enrolments:
        signing = (r.people_who_signed(signed, 0) & frozenset(r.version.address_authorities) for r in rosters)
        if not any(signing):
            yield Refusal(Rule.SIGNATURE_INVALID, document="Enrolment", to=signed.message.address)


def _check_heads(body: Mapping[str, Any], statement: Statement) -> Iterator[Refusal]:
    """The ledger's head is not behind what the attestor vouched for in the same file, and where it is level, it is that one."""
    position, head = int(str(body["ledger"]["position"])), str(body["ledger"]["head"])
    told = statement.ledger_position, "0x" + statement.ledger_head.hex()
    if position < told[0] or (position == told[0] and head != told[1]):
        yield Refusal(Rule.HISTORY_CHANGED, got=f"{position}:{head}", want=f"{told[0]}:{told[1]}")


def _check_bundles(body: Mapping[str, Any], rosters: tuple[Roster, ...], now: int, policy: bytes) -> Iterator[Refusal]:
    """Each bundle has the hash that its owners signed, and the attestor's newest is among them."""
    bundles: dict[bytes, Bundle] = {}
    for row in body["bundles"]:
        found = bundle_of(row)
        bundles[found.hash] = found
    activations = [Signed.from_json(PolicyActivation, row) for row in body["activations"]]
    lineage = walk(activations, bundles.get, sights(body["sights"]).get, rosters, now)
    in_force = {step.bundle.hash for step in lineage.steps}
    if policy not in in_force:
        yield Refusal(Rule.POLICY_OLDER, got=[each.hex() for each in in_force], want=policy.hex())
