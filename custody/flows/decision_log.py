# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every decision of policy that was recorded: the newest of each transfer beside it, those before it in the mirror of documents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from custody.flows.ports import Damaged, UnitOfWork
from custody.rules.decisions import DECISION
from custody.rules.refusals import Refusal, Rule

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Recorded:
    """One record as it is stored, and whose. Whoever reads it checks its hash; `id` is the transfer's, empty where it is gone."""

    digest: bytes
    id: str
    body: Mapping[str, object]


def recorded(work: UnitOfWork) -> Iterator[Recorded | Refusal]:
    """All of them, in the order of transfers, the oldest of each first; a row that cannot be read is told as a refusal."""
    before: dict[bytes, list[Mapping[str, object]]] = {}
    for row in work.documents.all(DECISION):
        body, digest = row.get("decision"), str(row.get("transfer"))
        if isinstance(body, Mapping) and len(digest) == 64:
            before.setdefault(bytes.fromhex(digest), []).append(body)
        else:
            yield Refusal(Rule.ROW_DAMAGED, table="documents", kind=DECISION)
    after = 0
    while page := work.transfers.examine(after, _PAGE):
        for after, transfer in page:  # noqa: B007
            if isinstance(transfer, Damaged):
                yield transfer.why
                continue
            for body in before.pop(transfer.digest, ()):
                yield Recorded(transfer.digest, transfer.intent.id, body)
            if transfer.decision is not None:
                yield Recorded(transfer.digest, transfer.intent.id, transfer.decision)
    for left, bodies in before.items():
        yield from (Recorded(left, "", body) for body in bodies)
