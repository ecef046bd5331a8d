# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ledger verify` put together: the journal of one deployment, against its roster, its bundle, its wallets and its nodes."""

from custody.bootstrap import Deployment
from custody.flows.verification import Finding, verify_ledger
from custody.rules.provenance import Authorities


def authorities(deployment: Deployment) -> Authorities:
    """Against whom origins are checked: everything verified from genesis, nothing taken from a row."""
    lineage = deployment.lineage()
    bundle = lineage.newest.bundle
    inventory = deployment.inventory()
    schedules = {step.bundle.hash: step.bundle.fees for step in lineage.steps}
    return Authorities(bundle.assets, deployment.rosters, schedules, inventory.holding_of, inventory.tiers)


def audit(deployment: Deployment) -> list[Finding]:
    """Everything that is wrong with the ledger; empty means that it holds, to the origin of each entry."""
    return verify_ledger(deployment.store, authorities(deployment), deployment.views)
