# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs of the shipped bundle, and backdoors planted in it: each is caught, with a transfer that the evaluator confirms."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from custody.rules.errors import InvalidInput
from policies.bundle import Bundle, from_json
from policies.proofs.difference import Difference, answer_text, difference
from policies.proofs.documents import Direction
from policies.proofs.idle import Idleness, idle
from policies.proofs.losses import Loss
from policies.proofs.obligations import Proof, Prover
from tests.unit.shipped import open_shipped

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def edited(bundle: Bundle, *edits: Edit) -> Bundle:
    """The bundle after these edits of its documents."""
    documents: dict[str, Any] = copy.deepcopy(dict(bundle.documents))
    for edit in edits:
        edit(documents)
    return from_json(documents)


def failed(bundle: Bundle, before: Bundle | None = None) -> dict[str, Proof]:
    """Obligations that do not hold."""
    return {proof.id: proof for proof in Prover(bundle).prove(before) if not proof.holds}


def rule(name: str, **changed: Any) -> Edit:
    """Change parts of one rule; `when` and `automatic_when` are merged, None removes."""

    def edit(documents: dict[str, Any]) -> None:
        (row,) = [row for row in documents["rules"]["rules"] if row["id"].startswith(name)]
        for key, value in changed.items():
            if isinstance(value, dict) and isinstance(row.get(key), dict):
                row[key] = {k: v for k, v in {**row[key], **value}.items() if v is not None}
            elif value is None:
                row.pop(key)
            else:
                row[key] = value

    return edit


def add(**row: Any) -> Edit:
    """One rule more."""
    return lambda documents: documents["rules"]["rules"].append(row)


def drop(*names: str) -> Edit:
    """Some rules less."""

    def edit(documents: dict[str, Any]) -> None:
        rules = documents["rules"]["rules"]
        rules[:] = [row for row in rules if not row["id"].startswith(names)]

    return edit


def claim(name: str, **changed: Any) -> Edit:
    """Change parts of one claim."""

    def edit(documents: dict[str, Any]) -> None:
        (row,) = [row for row in documents["claims"]["claims"] if row["id"].startswith(name)]
        row.update(changed)

    return edit


def limit(name: str, asset: str, value: str) -> Edit:
    """Change one limit."""
    return lambda documents: documents["limits"][name].__setitem__(asset, value)


FLOAT = add(
    id="P90-settlement-float",
    kind="permit",
    why="Operations keep a float for settlements, so that trades clear at once.",
    when={
        "from": ["customer_hot"],
        "to": ["internal_wallet"],
        "to_tier": ["operational"],
        "purpose": ["rebalance"],
        "role": ["operator"],
    },
    approvals=["1 of operations", "1 of treasury"],
)
VENDOR_FROM_COLD = add(
    id="P91-cold-vendor",
    kind="permit",
    why="A large bill may be paid out of cold where the operational wallet is short.",
    when={"from": ["customer_cold"], "to": ["allow_listed"], "purpose": ["vendor_payment"], "role": ["operator"]},
    approvals=["1 of operations", "1 of treasury", "1 of risk"],
    delay="1h",
)
UNTIE = rule("D02", when={"from": ["customer_cold"]})


def test_the_shipped_bundle_is_proved(bundle: Bundle) -> None:
    """Every claim, each with its vacuity guard, and every built-in obligation."""
    proofs = [*Prover(bundle).prove()]
    assert [proof for proof in proofs if not proof.holds] == []
    assert len(proofs) >= 55
    assert {proof.id for proof in proofs} >= {"B05-no-chain-to-the-company", "C01-company-only-from-fees.vacuity"}


@pytest.mark.parametrize(
    ("edits", "caught"),
    [
        pytest.param(
            (FLOAT, UNTIE), {"C01-company-only-from-fees", "B05-no-chain-to-the-company"}, id="settlement float"
        ),
        pytest.param(
            (VENDOR_FROM_COLD, drop("D02", "D03", "D08")),
            {"C01-company-only-from-fees", "C02-cold-never-pays-the-company", "B05-no-chain-to-the-company"},
            id="a vendor paid out of cold",
        ),
        pytest.param((drop("R04"),), {"C08-related-entities"}, id="related entities' require deleted"),
        pytest.param((rule("R04", delay="23h"),), {"C08-related-entities"}, id="an hour less for affiliates"),
        pytest.param(
            (rule("R02", when={"usd": "more than 1,000,000 USD"}),), {"C07-from-1m"}, id="at least became more than"
        ),
        pytest.param(
            (rule("R01", when={"usd": "at least 100,000.000001 USD"}),), {"C06-from-100k"}, id="one micro-USD later"
        ),
        pytest.param((drop("D01"),), {"C10-sanctions"}, id="sanctions deleted"),
        pytest.param(
            (limit("hot_wallet_cap", "BTC", "100.00000001 BTC"),), {"C11-hot-cap"}, id="hot cap one satoshi higher"
        ),
        pytest.param(
            (limit("auto_withdrawal", "ETH", "50 ETH"),),
            {"C09-native-cap", "B07-automatic-within-floors"},
            id="beyond the native cap",
        ),
        pytest.param(
            (drop("P01"),), {f"B06-withdrawn-{s}" for s in ("btc", "eth", "usdx", "usdn")}, id="nobody can withdraw"
        ),
        pytest.param(
            (drop("P03"),), {f"B06-refilled-{s}" for s in ("btc", "eth", "usdx", "usdn")}, id="hot cannot be refilled"
        ),
    ],
)
def test_a_backdoor_breaks_a_proof(bundle: Bundle, edits: tuple[Edit, ...], caught: set[str]) -> None:
    """By the claim or obligation that stands for it, with an example that the evaluator confirms where there is one."""
    found = failed(edited(bundle, *edits))
    assert set(found) >= caught
    for proof in found.values():
        assert proof.examples or proof.trouble == "no transfer is like this"
        assert "confirm" not in proof.trouble


def test_a_chain_of_two_legal_moves(bundle: Bundle) -> None:
    """Hot to cold is legal, and so would cold to the company be: together they carry customers' coins out."""
    from_cold = rule(
        "P05",
        when={"from": ["customer_cold"], "within_accrued_fees": None, "purpose": ["rebalance"], "role": ["operator"]},
    )
    only_cold_to_company = edited(bundle, from_cold, drop("D03"), rule("D02", when={"from": ["customer_hot"]}))
    proof = failed(only_cold_to_company)["B05-no-chain-to-the-company"]
    assert proof.examples[-1].facts.to_tier == "operational"
    assert all(example.decision.requirement is not None for example in proof.examples)


def test_rules_and_claims_weakened_in_one_change(bundle: Bundle) -> None:
    """The new claims are satisfied; the old ones still hold the new rules."""
    change = edited(bundle, rule("R04", delay="1h"), claim("C08", then={"people": "4", "groups": "3", "delay": "1h"}))
    assert failed(change) == {}
    assert list(failed(change, bundle)) == ["C08-related-entities (as it was)"]
    assert difference(bundle, change).claims_change


def weaker(found: Difference) -> list[tuple[Loss, str]]:
    """What was lost, in short."""
    return sorted({(s.lost.loss, s.lost.what) for s in found.shifts if s.direction is Direction.WEAKER})


@pytest.mark.parametrize(
    ("edits", "lost"),
    [
        pytest.param((), [], id="nothing"),
        pytest.param((rule("R04", why="The same with other words, which decide nothing."),), [], id="other words"),
        pytest.param((rule("R01", delay="2h"),), [], id="stricter"),
        pytest.param(
            (drop("R05"),),
            [(Loss.APPROVALS, g) for g in ("executive", "risk", "treasury")]
            + [(Loss.DELAY, "1h"), (Loss.DISPLAYING, "1")],
            id="a require deleted",
        ),
        pytest.param(
            (limit("auto_withdrawal", "BTC", "0.25000001 BTC"),), [(Loss.PEOPLE, "")], id="one satoshi more by itself"
        ),
        pytest.param(
            (limit("largest_withdrawal", "USDN", "5,000,000.000001 USDN"),),
            [(Loss.DENIAL, "")],
            id="one base unit more",
        ),
        pytest.param((FLOAT, UNTIE), [(Loss.DENIAL, "")], id="settlement float"),
    ],
)
def test_the_difference_in_meaning(bundle: Bundle, edits: tuple[Edit, ...], lost: list[tuple[Loss, str]]) -> None:
    """Every loss and nothing else; each example is answered differently by the two evaluators."""
    new = edited(bundle, *edits)
    found = difference(bundle, new)
    assert weaker(found) == sorted(lost)
    assert found.is_weaker is bool(lost)
    assert found.unknown == ()
    for shift in found.shifts:
        assert answer_text(shift.old) != answer_text(shift.new)
    assert difference(bundle, new).hash == found.hash


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        pytest.param(drop("D02"), "D02", id="a deny that no permit needs today"),
        pytest.param(rule("R02", approvals=["1 of executive"]), "R02", id="approvals that another rule asks too"),
        pytest.param(
            rule("P01", automatic_when={"dest_age": "at least 23h"}), "P01", id="an age that a deny holds anyway"
        ),
    ],
)
def test_a_spare_brick_taken_out(bundle: Bundle, edit: Edit, name: str) -> None:
    """No answer changes today, and it is weaker all the same: the next change would find the wall one brick thick."""
    found = difference(bundle, edited(bundle, edit))
    assert found.shifts == ()
    assert [change.where.startswith(f"rules.yaml {name}") for change in found.changes] == [True]
    assert found.is_weaker


def test_it_is_the_same_backwards(bundle: Bundle) -> None:
    """What one direction calls weaker the other calls stricter, with the same examples."""
    new = edited(bundle, drop("R05"), limit("auto_withdrawal", "BTC", "1 BTC"))
    there, back = difference(bundle, new), difference(new, bundle)
    assert [s.facts for s in there.shifts if s.direction is Direction.WEAKER] == [
        s.facts for s in back.shifts if s.direction is Direction.STRICTER
    ]
    assert not back.is_weaker


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        pytest.param(lambda d: d["fees"].update(maturity="23h"), "fees.yaml maturity", id="fees mature sooner"),
        pytest.param(
            lambda d: d["fees"]["fees"][0].update(at_most="26 bps"), "fees.yaml BTC at_most (bps)", id="a higher fee"
        ),
        pytest.param(
            lambda d: d["floors"]["automatic"]["per_day"].update(BTC="15.1 BTC"),
            "floors.yaml automatic.per_day, BTC",
            id="seats' day",
        ),
        pytest.param(
            lambda d: d["governance"]["weaker"].update(delay="47h"), "governance.yaml weaker.delay", id="governance"
        ),
        pytest.param(
            lambda d: d["governance"]["claims"].update(group="risk"),
            "governance.yaml claims.group",
            id="claims' owners",
        ),
        pytest.param(
            lambda d: d["claims"]["claims"].pop(0), "claims.yaml C01-company-only-from-fees", id="a claim removed"
        ),
        pytest.param(
            lambda d: d["claims"]["limits"]["never_automatic"].update(BTC="0.6 BTC"),
            "claims.yaml limits",
            id="a claim's number",
        ),
        pytest.param(
            lambda d: d["assets"]["assets"][0].update(dust="0.00000999 BTC"), "assets.yaml BTC dust", id="dust"
        ),
        pytest.param(
            lambda d: d["assets"]["assets"][2].update(contract="0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"),
            "assets.yaml USDX contract",
            id="another contract",
        ),
        pytest.param(
            lambda d: d["limits"]["hot_wallet_target"].update(ETH="501 ETH"),
            "limits.yaml hot wallet's target, ETH",
            id="more in hot",
        ),
    ],
)
def test_documents_beside_the_rules(bundle: Bundle, edit: Edit, where: str) -> None:
    """A bypass moves into data: each of these is weaker, and its reverse is not."""
    new = edited(bundle, edit)
    found = difference(bundle, new)
    assert [change.where for change in found.changes if change.direction is Direction.WEAKER] == [where]
    assert found.is_weaker
    assert found.shifts == ()


def test_a_rule_that_spares_someone_cannot_be_written(bundle: Bundle) -> None:
    """The "tidying" change: related_entity false in three requires. The language has no word for it."""
    for name in ("R01", "R02", "R03"):
        with pytest.raises(InvalidInput, match="danger may not help"):
            edited(bundle, rule(name, when={"related_entity": "false"}))
    softer = difference(bundle, edited(bundle, rule("R04", approvals=["1 of risk", "1 of board"], delay="1h")))
    assert {s.facts.related_entity for s in softer.shifts} == {True}
    assert (Loss.APPROVALS, "executive") in weaker(softer)


def test_rules_that_do_nothing(bundle: Bundle) -> None:
    """Dead, shadowed and redundant ones are told, each by why; denies that stand against a permit to come are no fault."""
    assert {each.idleness for each in idle(bundle) if each.what[0] in "PRD"} == {Idleness.GUARD}
    planted = edited(
        bundle,
        add(
            id="R80-dead",
            kind="require",
            why="Never matches: no vendor is a customer.",
            when={
                "purpose": ["fee_sweep"],
                "within_accrued_fees": "false",
                "to": ["customer_withdrawal"],
                "owner": ["company"],
            },
            delay="1h",
        ),
        add(
            id="R81-shadowed",
            kind="require",
            why="Less than what R02 asks of the same.",
            when={"usd": "at least 2,000,000 USD"},
            delay="1h",
        ),
        add(
            id="R82-redundant",
            kind="require",
            why="What R01 and R02 ask together already.",
            when={"usd": "at least 1,000,000 USD", "to_tier": ["operational"]},
            approvals=["1 of executive"],
        ),
    )
    found = {
        each.what: each.idleness
        for each in idle(planted)
        if each.idleness is not Idleness.GUARD and each.what[0] == "R"
    }
    assert found == {"R80-dead": Idleness.DEAD, "R81-shadowed": Idleness.SHADOWED, "R82-redundant": Idleness.SHADOWED}
