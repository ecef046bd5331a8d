# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a rule may say: the refusals a reviewer meets, each with its place and, where there is one, the word that was meant."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from custody.rules.errors import InvalidInput
from custody.rules.facts import Facts
from custody.rules.refusals import Rule
from policies.bundle import Bundle, load
from policies.rules_model import Comparator, Compared, Kind, LimitName, OneOf, PolicyRule, Says
from policies.vocabulary import ATTRIBUTE, IDENTITIES, VOCABULARY, Flag
from tests.unit.shipped import SHIPPED, open_shipped, with_rules, write

PERMIT: Final = {
    "id": "P01-some-route",
    "kind": "permit",
    "why": "A sentence that says why.",
    "when": {"from": ["customer_hot"], "to": ["customer_withdrawal"], "purpose": ["withdrawal"]},
    "approvals": ["1 of operations"],
    "automatic_when": {
        "amount": "at most limit auto_withdrawal",
        "usd": "at most 25,000 USD",
        "wallet_1h": "at most 500,000 USD",
    },
}
REQUIRE: Final = {
    "id": "R01-more",
    "kind": "require",
    "why": "A sentence that says why.",
    "when": {"usd": "at least 100,000 USD"},
    "approvals": ["2 of risk"],
    "delay": "1h",
}
DENY: Final[dict[str, Any]] = {
    "id": "D01-never",
    "kind": "deny",
    "why": "A sentence that says why.",
    "when": {"sanctioned": "true"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def changed(rule: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A rule with one key set, or taken out by None."""
    copy: dict[str, Any] = json.loads(json.dumps(rule))
    *parents, last = path.split(".")
    place = copy
    for step in parents:
        place = place.setdefault(step, {})
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return copy


def test_the_plain_rules_are_read(bundle: Bundle) -> None:
    """The three that the refusals change, exact to the base unit and in their own words."""
    never, permit, more = with_rules(bundle, [REQUIRE, PERMIT, DENY]).rules
    assert never == PolicyRule("D01-never", Kind.DENY, DENY["why"], (Says("sanctioned", True),), (), 0, ())
    assert permit.when[0] == OneOf("from", ("customer_hot",))
    assert permit.automatic_when == (
        Compared("amount", Comparator.AT_MOST, LimitName("auto_withdrawal"), "limit auto_withdrawal"),
        Compared("usd", Comparator.AT_MOST, 25_000_000_000, "25,000 USD"),
        Compared("wallet_1h", Comparator.AT_MOST, 500_000_000_000, "500,000 USD"),
    )
    assert (more.approvals, more.delay) == ((("risk", 2),), 3600)
    assert [str(c) for c in (*permit.when, *permit.automatic_when, *never.when)] == [
        "from: [customer_hot]", "to: [customer_withdrawal]", "purpose: [withdrawal]", "amount: at most limit auto_withdrawal",
        "usd: at most 25,000 USD", "wallet_1h: at most 500,000 USD", "sanctioned: true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        pytest.param(PERMIT, "delay", "30d", id="longest delay"),
        pytest.param(PERMIT, "automatic_when", None, id="never automatic"),
        pytest.param(PERMIT, "when.usd", "less than 0.000001 USD", id="one micro-USD"),
        pytest.param(PERMIT, "when.related_entity", "false", id="permit for strangers only"),
        pytest.param(PERMIT, "when.within_accrued_fees", "true", id="permit within fees"),
        pytest.param(PERMIT, "when.dest_age", "more than 90min", id="permit for the settled"),
        pytest.param(DENY, "when.dest_age", "less than 1d", id="deny for the fresh"),
        pytest.param(DENY, "when.enrolled", "false", id="deny for the unenrolled"),
        pytest.param(DENY, "when.business_hours", "false", id="deny at night"),
        pytest.param(REQUIRE, "approvals", None, id="require that only waits"),
        pytest.param(REQUIRE, "delay", None, id="require that only asks"),
        pytest.param(REQUIRE, "displaying", "1 approval", id="one key that displays"),
        pytest.param(PERMIT, "displaying", "2 approvals", id="two of them"),
        pytest.param(REQUIRE, "when", {"asset": ["BTC"], "amount": "at least 1.5 BTC"}, id="amount of a named asset"),
        pytest.param(
            REQUIRE, "when", {"from": ["customer_hot", "customer_cold", "operational"]}, id="require everywhere"
        ),
    ],
)
def test_accepted(bundle: Bundle, rule: dict[str, Any], path: str, value: object) -> None:
    """Beside the refusals: what the language does let somebody write."""
    with_rules(bundle, [changed(rule, path, value)])


@pytest.mark.parametrize(
    ("rule", "path", "value", "field", "said"),
    [
        # shape
        pytest.param(PERMIT, "kind", "allow", "kind", "permit, require, deny", id="unknown kind"),
        pytest.param(PERMIT, "kind", "premit", "kind", "'permit'?", id="kind with a suggestion"),
        pytest.param(PERMIT, "kind", None, "", "its kind", id="no kind"),
        pytest.param(PERMIT, "why", None, "", "no 'why'", id="no why"),
        pytest.param(PERMIT, "why", "because", "why", "10 to 400", id="why that says nothing"),
        pytest.param(PERMIT, "approvals", None, "", "no 'approvals'", id="permit without approvals"),
        pytest.param(PERMIT, "approval", ["1 of risk"], "approval", "'approvals'?", id="unknown key with a suggestion"),
        pytest.param(PERMIT, "priority", "1", "priority", "one of", id="rules have no order"),
        pytest.param(DENY, "approvals", ["1 of risk"], "approvals", "unknown key", id="deny with approvals"),
        pytest.param(DENY, "displaying", "1 approval", "displaying", "unknown key", id="deny that asks for a key"),
        pytest.param(PERMIT, "displaying", "1", "displaying", "'1 approval'", id="displaying without a unit"),
        pytest.param(PERMIT, "displaying", "1 approvals", "displaying", "'1 approval'", id="1 approvals"),
        pytest.param(PERMIT, "displaying", "2 approval", "displaying", "'1 approval'", id="2 approval"),
        pytest.param(PERMIT, "displaying", "0 approvals", "displaying", "1 or more", id="displaying nobody"),
        pytest.param(PERMIT, "displaying", "-1 approvals", "displaying", "", id="displaying less than nobody"),
        pytest.param(PERMIT, "displaying", "51 approvals", "displaying", "50", id="displaying everybody there is"),
        pytest.param(PERMIT, "displaying", ["1 of risk"], "displaying", "", id="displaying of a group"),
        pytest.param(DENY, "automatic_when", {}, "automatic_when", "unknown key", id="deny that is automatic"),
        pytest.param(REQUIRE, "automatic_when", {}, "automatic_when", "unknown key", id="require that is automatic"),
        pytest.param(PERMIT, "id", "D01-some-route", "id", "P01-some-words", id="id of another kind"),
        pytest.param(PERMIT, "id", "P1", "id", "P01-some-words", id="id without words"),
        pytest.param(PERMIT, "when", {}, "when", "at least one condition", id="no condition"),
        pytest.param(DENY, "when", [], "when", "a mapping of facts", id="conditions as a list"),
        # routes
        pytest.param(PERMIT, "when.from", None, "when", "no 'from'", id="permit without from"),
        pytest.param(PERMIT, "when.to", None, "when", "no 'to'", id="permit without to"),
        pytest.param(PERMIT, "when.purpose", None, "when", "no 'purpose'", id="permit without purpose"),
        pytest.param(PERMIT, "when.to", ["internal_wallet"], "when", "to_tier beside", id="internal wallet of any tier"),
        pytest.param(PERMIT, "when.to_tier", ["operational"], "when", "to_tier beside", id="a tier for an outside address"),
        pytest.param(PERMIT, "when.from", "customer_hot", "when.from", "a list", id="one word without a list"),
        pytest.param(PERMIT, "when.from", [], "when.from", "at least one", id="none of the tiers"),
        pytest.param(PERMIT, "when.from", ["customer_hot", "customer_hot"], "when.from[1]", "each word once", id="a word twice"),
        pytest.param(PERMIT, "when.from", ["hot_customer"], "when.from[0]", "one of customer_cold", id="unknown tier"),
        pytest.param(PERMIT, "when.purpose", ["withdrawl"], "when.purpose[0]", "'withdrawal'?", id="unknown word"),
        pytest.param(PERMIT, "when.asset", ["DOGE"], "when.asset[0]", "one of BTC", id="unknown asset"),
        # words, units, places
        pytest.param(PERMIT, "when.usd", "<= 5 USD", "when.usd", "at most", id="symbols"),
        pytest.param(PERMIT, "when.usd", "5 USD", "when.usd", "at most", id="no comparison"),
        pytest.param(PERMIT, "when.usd", "at most 5", "when.usd", "its unit", id="missing unit"),
        pytest.param(PERMIT, "when.usd", "at most 5 EUR", "when.usd", "USD", id="unknown unit"),
        pytest.param(PERMIT, "when.usd", "at most 5 usd", "when.usd", "USD", id="unit in lower case"),
        pytest.param(PERMIT, "when.usd", "at most  5 USD", "when.usd", "its unit", id="two spaces"),
        pytest.param(PERMIT, "when.usd", "at most 5,00 USD", "when.usd", "its unit", id="comma in the wrong place"),
        pytest.param(PERMIT, "when.usd", "at most 5k USD", "when.usd", "its unit", id="k"),
        pytest.param(PERMIT, "when.usd", "at most 1e6 USD", "when.usd", "its unit", id="exponent"),
        pytest.param(PERMIT, "when.usd", "at most -5 USD", "when.usd", "its unit", id="negative"),
        pytest.param(PERMIT, "when.usd", "at most 05 USD", "when.usd", "its unit", id="leading zero"),
        pytest.param(PERMIT, "when.usd", "at most 0.0000001 USD", "when.usd", "at most 6 places", id="too many places"),
        pytest.param(PERMIT, "when.usd", f"at most {'9' * 80} USD", "when.usd", "2^256", id="beyond 2^256"),
        pytest.param(PERMIT, "when.usd", "at most limit auto_withdrawal", "when.usd", "a bound in USD", id="native limit on USD"),
        pytest.param(PERMIT, "when.usd", ["at most 5 USD"], "when.usd", "text", id="a bound as a list"),
        pytest.param(PERMIT, "when.usd", "at most 5 USD or 6 USD", "when.usd", "its unit", id="or inside a bound"),
        pytest.param(PERMIT, "when.usd", "at most customer_24h", "when.usd", "its unit", id="a fact as a bound"),
        pytest.param(PERMIT, "when.usd", "at most 2 * 5 USD", "when.usd", "its unit", id="an expression"),
        pytest.param(PERMIT, "when.amount", "at most 5 BTC", "when.amount", "asset: [ONE]", id="amount of no named asset"),
        pytest.param(PERMIT, "when.amount", "at most limit auto_withdrawl", "when.amount", "'auto_withdrawal'?", id="no limit"),
        pytest.param(PERMIT, "when.amount", "at most limit", "when.amount", "a limit of", id="limit without a name"),
        pytest.param(PERMIT, "when.dest_age", "at least 22:00", "when.dest_age", "such as 24h", id="22:00"),
        pytest.param(PERMIT, "when.dest_age", "at least 24", "when.dest_age", "such as 24h", id="age without unit"),
        pytest.param(PERMIT, "when.dest_age", "at least 24 h", "when.dest_age", "such as 24h", id="age with a space"),
        pytest.param(PERMIT, "delay", "22:00", "delay", "such as 24h", id="delay 22:00"),
        pytest.param(PERMIT, "delay", "31d", "delay", "at most 30d", id="delay for ever"),
        pytest.param(DENY, "when.sanctioned", "yes", "when.sanctioned", "true or false", id="yes"),
        pytest.param(DENY, "when.sanctioned", "True", "when.sanctioned", "true or false", id="True"),
        # approvals
        pytest.param(PERMIT, "approvals", [], "approvals", "at least one", id="nobody approves"),
        pytest.param(PERMIT, "approvals", ["0 of risk"], "approvals[0]", "1 or more", id="none of a group"),
        pytest.param(PERMIT, "approvals", ["51 of risk"], "approvals[0]", "up to 50", id="more than any group has"),
        pytest.param(PERMIT, "approvals", ["risk"], "approvals[0]", "2 of treasury", id="no number"),
        pytest.param(PERMIT, "approvals", ["two of risk"], "approvals[0]", "whole number", id="a number in words"),
        pytest.param(PERMIT, "approvals", ["1 of risk or board"], "approvals[0]", "2 of treasury", id="or between groups"),
        pytest.param(PERMIT, "approvals", ["1 of risk", "2 of risk"], "approvals[1]", "each group once", id="a group twice"),
        pytest.param(REQUIRE, "approvals", ["1 of Risk"], "approvals[0]", "2 of treasury", id="a group with a capital"),
        # logic
        *(
            pytest.param(PERMIT, f"when.{word}", [{"usd": "at most 5 USD"}], f"when.{word}", "joined by AND", id=f"{word}")
            for word in ("or", "not", "any", "except", "unless")
        ),
        pytest.param(PERMIT, "when.usdd", "at most 5 USD", "when.usdd", "'usd'?", id="unknown fact with a suggestion"),
        pytest.param(PERMIT, "when.from_tier", ["customer_hot"], "when.from_tier", "unknown fact", id="a name of the code's"),
        # automatic
        pytest.param(PERMIT, "automatic_when.amount", None, "automatic_when", "no cap on amount", id="automatic, no native cap"),
        pytest.param(PERMIT, "automatic_when.usd", None, "automatic_when", "no cap on usd", id="automatic, no USD cap"),
        pytest.param(PERMIT, "automatic_when.wallet_1h", None, "automatic_when", "no rolling-window cap", id="no window"),
        pytest.param(
            PERMIT, "when.from", ["customer_hot", "customer_cold"], "automatic_when", "nothing leaves cold", id="automatic cold"
        ),
        pytest.param(PERMIT, "automatic_when", {}, "automatic_when", "at least one condition", id="automatic without conditions"),
    ],
)  # fmt: skip
def test_refused(bundle: Bundle, rule: dict[str, Any], path: str, value: object, field: str, said: str) -> None:
    """Where, and what would be right."""
    with pytest.raises(InvalidInput) as caught:
        with_rules(bundle, [changed(rule, path, value)])
    assert caught.value.field == "rules.yaml:rules[0]" + (f".{field}" if field else "")
    assert said in f"{caught.value.got}; {caught.value.want}"


@pytest.mark.parametrize(
    ("rule", "fact", "value"),
    [
        pytest.param(PERMIT, "usd", "more than 5 USD", id="permit from an amount on"),
        pytest.param(PERMIT, "usd", "at least 5 USD", id="permit for a band"),
        pytest.param(PERMIT, "dest_age", "at most 24h", id="permit for the fresh"),
        pytest.param(PERMIT, "sanctioned", "true", id="permit for the sanctioned"),
        pytest.param(PERMIT, "related_entity", "true", id="permit for insiders"),
        pytest.param(PERMIT, "within_accrued_fees", "false", id="permit beyond fees"),
        pytest.param(PERMIT, "enrolled", "false", id="permit for the unenrolled"),
        pytest.param(REQUIRE, "usd", "at most 5 USD", id="require that stops for more"),
        pytest.param(REQUIRE, "related_entity", "false", id="affiliate rule softened"),
        pytest.param(DENY, "usd", "less than 5 USD", id="deny that stops for more"),
        pytest.param(DENY, "dest_age", "at least 24h", id="deny that stops for the fresh"),
        pytest.param(DENY, "sanctioned", "false", id="deny that the sanctioned escape"),
    ],
)
def test_danger_may_only_tighten(bundle: Bundle, rule: dict[str, Any], fact: str, value: str) -> None:
    """Polarity: no rule gets easier as a transfer gets bigger, fresher or more suspicious."""
    with pytest.raises(InvalidInput, match="the other direction"):
        with_rules(bundle, [changed(rule, f"when.{fact}", value)])


@pytest.mark.parametrize("name", sorted(IDENTITIES))
@pytest.mark.parametrize("rule", [PERMIT, REQUIRE, DENY], ids=["permit", "require", "deny"])
def test_no_rule_names_anybody(bundle: Bundle, rule: dict[str, Any], name: str) -> None:
    """A rule cannot single out a customer, entity, person or wallet, and says so."""
    with pytest.raises(InvalidInput, match="a fact that names nobody"):
        with_rules(bundle, [changed(rule, f"when.{name}", ["alameda"])])


def test_an_id_stands_once(bundle: Bundle) -> None:
    """Two rules under one name could not be told apart in a decision."""
    with pytest.raises(InvalidInput) as caught:
        with_rules(bundle, [PERMIT, DENY, PERMIT])
    assert (caught.value.field, caught.value.rule) == ("rules.yaml:rules[2].id", Rule.NAME_REUSED)


def test_every_fact_is_in_the_vocabulary_and_declared() -> None:
    """One word for each field of the kernel's facts; each flag says which value tightens; no word is an identity."""
    assert sorted(ATTRIBUTE.values()) == sorted(Facts.__dataclass_fields__)
    assert {f.name: f.tightens for f in VOCABULARY.values() if isinstance(f, Flag)} == {
        "enrolled": False, "related_entity": True, "sanctioned": True, "within_accrued_fees": False, "business_hours": False,
    }  # fmt: skip
    assert not IDENTITIES & set(VOCABULARY)


def _replace(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert text.count(old) >= 1
        return text.replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        pytest.param(
            _replace("usd: at most 5,000,000 USD", "usdd: at most 5,000,000 USD"), "'usd'?", id="unknown fact"
        ),
        pytest.param(_replace("usd: at most 5,000,000 USD", "usd: &cap at most 5 USD"), "an anchor", id="anchor"),
        pytest.param(_replace("usd: at most 5,000,000 USD", "usd: !!int 5"), "a tag", id="tag"),
        pytest.param(_replace("usd: at most 5,000,000 USD", "<<: {usd: x}"), "a merge", id="merge"),
        pytest.param(_replace("usd: at most 5,000,000 USD", "role: [system]"), "each key once", id="duplicate key"),
        pytest.param(
            _replace("usd: at most 5,000,000 USD", "usd: at most 5,000,000 US\u0044\u0410"), "ASCII", id="look-alike"
        ),
        pytest.param(_replace("usd: at most 5,000,000 USD", "customer: [alameda]"), "names nobody", id="identity"),
    ],
)
def test_a_person_is_told_the_line(tmp_path: Path, edit: Callable[[str], str], told: str) -> None:
    """File and line of the shipped rules with one line of P01 changed."""
    text = edit((SHIPPED / "rules.yaml").read_text(encoding="ascii"))
    with pytest.raises(InvalidInput) as caught:
        load(write(tmp_path, rules=text))
    assert caught.value.field.startswith("rules.yaml:16")
    assert told in str(caught.value)


def test_a_flow_mapping_splits_at_commas_and_is_caught(tmp_path: Path) -> None:
    """`{usd: at least 100,000 USD}` means at least 100 and a fact called `000 USD`: YAML's own trap, told as such."""
    text = (
        (SHIPPED / "rules.yaml").read_text(encoding="ascii").replace('"at least 100,000 USD"', "at least 100,000 USD")
    )
    with pytest.raises(InvalidInput, match="in quotes"):
        load(write(tmp_path, rules=text))
