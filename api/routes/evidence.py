# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is held and what is owed: the inventory from certificates, and the attestor's signed word."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.documents import coverage_out, wallet_out
from api.problems import Absent
from api.routes.common import Json, Parts, Reader
from custody.flows.ports import UnitOfWork
from custody.rules.refusals import Refusal, Rule

router = APIRouter(prefix="/v1", tags=["evidence"])
Sequence = Annotated[str, Path(pattern=r"^(0|[1-9][0-9]{0,18})$")]


@router.get("/wallets")
def get_wallets(parts: Parts, _caller: Reader) -> Json:
    """Every wallet as its certificates have it, each certificate's quorum verified, with the ledger's balances."""
    kernel = parts.kernel()
    wallets = sorted(kernel.inventory, key=lambda wallet: (wallet.chain, wallet.tier, wallet.name))

    def read(work: UnitOfWork) -> Json:
        return {"items": [wallet_out(work, wallet, kernel.assets) for wallet in wallets]}

    return parts.store.read(read)


@router.get("/coverage")
def get_coverage(parts: Parts, _caller: Reader) -> Json:
    """Reserves, liabilities and surplus per asset by the latest statement; below zero is a shortfall."""
    return coverage_out(parts.statements.latest().message, parts.kernel().assets)


@router.get("/statements/latest")
def get_latest_statement(parts: Parts, _caller: Reader) -> Json:
    """The attestor's newest signed statement; verify it offline with `bulkhead statement verify`."""
    return parts.statements.latest().to_json()


@router.get("/statements/{sequence}")
def get_statement(sequence: Sequence, parts: Parts, _caller: Reader) -> Json:
    """One statement by its sequence, as it was mirrored and verified again."""
    found = parts.statements.numbered(int(sequence))
    if found is None:
        raise Absent([Refusal(Rule.SEQUENCE, sequence=sequence, want="a statement that was mirrored")])
    return found.to_json()
