# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checking a statement with nothing but the roster: whose word it is, and whether what it says holds (TRUST.md, "Statement")."""

from collections.abc import Iterable, Iterator

from eth_keys.datatypes import PublicKey

from custody.rules.certificates import WalletCertificate
from custody.rules.coverage import check
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.statements import SafeState, Statement
from custody.rules.typed import ZERO_ADDRESS


def verify_signature(signed: Signed[Statement], roster: Roster) -> list[Refusal]:
    """The roster's attestor signed exactly this under genesis, and the roster at hand is not older than the one it names."""
    refusals = []
    if roster.version.attestor not in signed.signers(roster.domain):
        refusals.append(Refusal(Rule.SIGNATURE_INVALID, document="Statement", signer=str(roster.version.attestor)))
    if signed.message.roster > roster.version.version:
        refusals.append(Refusal(Rule.ROSTER_OLDER, version=roster.version.version, named=signed.message.roster))
    return refusals


def verify_statement(
    signed: Signed[Statement],
    roster: Roster,
    assets: Iterable[str] = (),
    certificates: Iterable[tuple[bytes, WalletCertificate]] = (),
) -> list[Refusal]:
    """Offline: signature, a height for each chain of the roster, law 2 for each asset, Safes as certified.

    `assets` are symbols that must have a row; those in the statement are checked anyway. `certificates` are pairs of a
    wallet's name and its newest certificate; without them Safes are compared with nothing.
    """
    statement = signed.message
    refusals = verify_signature(signed, roster)
    told = [height.chain for height in statement.heights]
    refusals += [Refusal(Rule.COVERAGE_UNKNOWN, chain=c) for c in sorted(set(roster.version.chains) - set(told))]
    rows = [row.asset for row in statement.coverage]
    for what, names in (("chain", told), ("asset", rows)):
        refusals += [Refusal(Rule.NAME_REUSED, **{what: n}) for n in sorted({n for n in names if names.count(n) > 1})]
    if not rows:
        refusals.append(Refusal(Rule.COVERAGE_UNKNOWN, asset="every asset"))
    for row in statement.coverage:
        if row.reserves != min(row.on_chain, row.in_ledger):
            refusals.append(
                Refusal(Rule.COVERAGE, asset=row.asset, reserves=row.reserves, want=min(row.on_chain, row.in_ledger))
            )
    refusals += check(statement.coverage, {*rows, *assets})
    refusals += check_safes(statement, certificates)
    return refusals


def check_safes(statement: Statement, certificates: Iterable[tuple[bytes, WalletCertificate]]) -> Iterator[Refusal]:
    """Every certified Safe stands in the statement, and stands as certified."""
    states = {state.wallet: state for state in statement.safes}
    for wallet, certificate in certificates:
        if not certificate.safe:
            continue
        state = states.get(wallet)
        if state is None:
            yield Refusal(Rule.SAFE_DRIFT, wallet=wallet.hex(), got="no state", want=certificate.safe[0].address)
        else:
            yield from check_safe_state(state, certificate)


def check_safe_state(state: SafeState, certificate: WalletCertificate) -> Iterator[Refusal]:
    """A Safe on chain against its certificate: owners, threshold, singleton, handler; no guard, no module.

    A Safe that nobody has deployed has no state that could differ: its address commits to all of it (CREATE2). A module
    enabled behind the quorum's back moves coins without one signature, so any drift freezes the wallet.
    """
    safe = certificate.safe[0]
    told: dict[str, tuple[object, object]] = {
        "chain": (state.chain, certificate.chain),
        "address": (state.address.lower(), safe.address.lower()),
    }
    if state.deployed:
        owners = sorted(
            PublicKey.from_compressed_bytes(s.key.public).to_canonical_address().hex() for s in certificate.seats
        )
        told |= {
            "owners": (sorted(owner[2:].lower() for owner in state.owners), owners),
            "threshold": (state.threshold, certificate.m),
            "singleton": (state.singleton.lower(), safe.singleton.lower()),
            "handler": (state.handler.lower(), safe.handler.lower()),
            "guard": (state.guard, ZERO_ADDRESS),
            "modules": (state.modules, ()),
        }
    for what, (got, want) in told.items():
        if got != want:
            yield Refusal(Rule.SAFE_DRIFT, wallet=state.wallet.hex(), field=what, got=str(got), want=str(want))
