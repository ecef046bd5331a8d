# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads `rules.yaml`: what a rule may say, and what is refused with the word that was probably meant."""

import re
from collections.abc import Mapping
from typing import Final

from custody.rules.amounts import Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS
from custody.rules.wallets import Tier
from policies.quantities import duration, micro_usd, text, units, whole
from policies.rules_model import (
    PREFIX,
    Comparator,
    Compared,
    Condition,
    Kind,
    LimitName,
    Limits,
    OneOf,
    PolicyRule,
    Says,
    fits_polarity,
)
from policies.shapes import below, mapping, rows
from policies.strict_yaml import Node
from policies.vocabulary import IDENTITIES, VERSION, VOCABULARY, WINDOWS, Choice, Fact, Flag, Measure, Quantity, nearest

_ID: Final = re.compile(r"[PRD][0-9]{2,3}-[a-z0-9]+(?:-[a-z0-9]+)*")
_GROUP: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_COMPARED: Final = re.compile(rf"({'|'.join(Comparator)}) (.+)")
_LONGEST_DELAY: Final = 30 * 86_400
_LOGIC: Final = frozenset(
    ("or", "and", "not", "any", "all", "any_of", "all_of", "none_of", "except", "unless", "if", "else", "then")
)
_KEYS: Final = {
    Kind.PERMIT: (("id", "kind", "why", "when", "approvals"), ("displaying", "delay", "automatic_when")),
    Kind.REQUIRE: (("id", "kind", "why", "when"), ("approvals", "displaying", "delay")),
    Kind.DENY: (("id", "kind", "why", "when"), ()),
}
"""Keys that a rule of a kind must have, and may have."""


def read_rules(node: Node, assets: Assets, limits: Limits, file: str = "rules.yaml:") -> tuple[PolicyRule, ...]:
    """Every rule, sorted by id: the order in the file means nothing. Raises InvalidInput for the first that is wrong."""
    fields = mapping(node, file, ("vocabulary", "rules"))
    if fields["vocabulary"] != VERSION:
        raise InvalidInput(below(file, "vocabulary"), Rule.MALFORMED, repr(fields["vocabulary"]), f"version {VERSION}")
    where = below(file, "rules")
    found: dict[str, PolicyRule] = {}
    for position, row in enumerate(rows(fields["rules"], where)):
        rule = _RuleReader(assets, limits, f"{where}[{position}]").read(row)
        if rule.id in found:
            raise InvalidInput(f"{where}[{position}].id", Rule.NAME_REUSED, repr(rule.id), "each id once")
        found[rule.id] = rule
    return tuple(found[name] for name in sorted(found))


def read_conditions(node: Node, assets: Assets, limits: Limits, where: str, kind: Kind) -> tuple[Condition, ...]:
    """The conditions of something that is read as a rule of this kind, in the vocabulary's order. Raises InvalidInput."""
    return _RuleReader(assets, limits, where).conditions(node, where, kind)


def read_why(node: Node, where: str) -> str:
    """The sentence that says why. Raises InvalidInput: too short or too long."""
    why = text(node, where)
    if not 10 <= len(why.strip()) <= 400:
        raise InvalidInput(where, Rule.MALFORMED, repr(why[:40]), "a sentence of 10 to 400 characters")
    return why


def read_approvals(node: Node, where: str) -> tuple[tuple[str, int], ...]:
    """How many of which groups, such as `[2 of treasury, 1 of risk]`, each group once. Raises InvalidInput."""
    found: dict[str, int] = {}
    for position, row in enumerate(rows(node, where)):
        here = f"{where}[{position}]"
        number, word, group = text(row, here).partition(" of ")
        if not word or _GROUP.fullmatch(group) is None:
            raise InvalidInput(here, Rule.MALFORMED, repr(row), "how many of which group, such as '2 of treasury'")
        if group in found:
            raise InvalidInput(here, Rule.NAME_REUSED, repr(group), "each group once")
        found[group] = whole(number, here, MOST_APPROVALS)
        if found[group] < 1:
            raise InvalidInput(here, Rule.THRESHOLD_OUT_OF_RANGE, repr(row), "1 or more")
    return tuple(sorted(found.items()))


def read_displaying(node: Node, where: str) -> int:
    """How many approvals by a key that displays, such as `1 approval`. Raises InvalidInput."""
    number, _, unit = text(node, where).partition(" ")
    if unit != ("approval" if number == "1" else "approvals"):
        raise InvalidInput(where, Rule.MALFORMED, repr(node), "how many approvals, such as '1 approval'")
    found = whole(number, where, MOST_APPROVALS)
    if found < 1:
        raise InvalidInput(where, Rule.THRESHOLD_OUT_OF_RANGE, repr(node), "1 or more")
    return found


class _RuleReader:
    """Reads one rule at its place in the file."""

    def __init__(self, assets: Assets, limits: Limits, where: str) -> None:
        self._assets = assets
        self._limits = limits
        self._where = where

    def read(self, node: Node) -> PolicyRule:
        where = self._where
        if not isinstance(node, dict) or "kind" not in node:
            raise InvalidInput(where, Rule.MALFORMED, "no kind", "a rule with its kind: " + ", ".join(Kind))
        named = text(node["kind"], f"{where}.kind")
        if named not in set(Kind):
            raise InvalidInput(f"{where}.kind", Rule.MALFORMED, repr(named), nearest(named, Kind))
        kind = Kind(named)
        fields = mapping(node, where, *_KEYS[kind])
        automatic = "automatic_when" in fields
        rule = PolicyRule(
            id=self._id(fields["id"], kind),
            kind=kind,
            why=read_why(fields["why"], f"{where}.why"),
            when=self.conditions(fields["when"], f"{where}.when", kind),
            approvals=read_approvals(fields["approvals"], f"{where}.approvals") if "approvals" in fields else (),
            delay=self._delay(fields["delay"]) if "delay" in fields else 0,
            automatic_when=self.conditions(fields["automatic_when"], f"{where}.automatic_when", kind)
            if automatic
            else (),
            displaying=read_displaying(fields["displaying"], f"{where}.displaying") if "displaying" in fields else 0,
        )
        if kind is Kind.PERMIT:
            self._check_route(rule.when)
        if kind is Kind.REQUIRE and not (rule.approvals or rule.displaying or rule.delay):
            got = "neither approvals nor displaying nor delay"
            raise InvalidInput(where, Rule.MALFORMED, got, "a require that requires something")
        if automatic:
            self._check_automatic(rule)
        return rule

    def _id(self, node: Node, kind: Kind) -> str:
        name = text(node, f"{self._where}.id")
        if _ID.fullmatch(name) is None or name[0] != PREFIX[kind]:
            want = f"{PREFIX[kind]}, a number and words for a {kind}, such as {PREFIX[kind]}01-some-words"
            raise InvalidInput(f"{self._where}.id", Rule.MALFORMED, repr(name), want)
        return name

    def _delay(self, node: Node) -> int:
        seconds = duration(node, f"{self._where}.delay")
        if seconds > _LONGEST_DELAY:
            raise InvalidInput(f"{self._where}.delay", Rule.TOO_LARGE, repr(node), "at most 30d")
        return seconds

    def conditions(self, node: Node, where: str, kind: Kind) -> tuple[Condition, ...]:
        """A mapping of facts, at least one."""
        if not isinstance(node, dict) or not node:
            raise InvalidInput(
                where, Rule.MALFORMED, type(node).__name__, "at least one condition: a mapping of facts, all must hold"
            )
        found = {}
        for name, value in node.items():
            here = f"{where}.{name}"
            found[name] = self._condition(_fact(name, here), value, here, kind, node)
        # In the vocabulary's order, route first: what is told as the first unmet condition depends on no file's or JSON's order.
        return tuple(found[name] for name in VOCABULARY if name in found)

    def _condition(self, fact: Fact, node: Node, where: str, kind: Kind, beside: Mapping[str, Node]) -> Condition:
        if isinstance(fact, Choice):
            return self._one_of(fact, node, where)
        condition = _says(fact, node, where) if isinstance(fact, Flag) else self._compared(fact, node, where, beside)
        if not fits_polarity(kind, fact, condition):
            # "permit where usd is more than" would make a bigger transfer easier to get through than a smaller one.
            want = f"the other direction: for a {kind}, danger may not help ({_polarity(fact)})"
            raise InvalidInput(where, Rule.MALFORMED, repr(str(condition)), want)
        return condition

    def _one_of(self, fact: Choice, node: Node, where: str) -> OneOf:
        known = fact.words or tuple(asset.symbol for asset in self._assets)
        words = [text(item, f"{where}[{i}]") for i, item in enumerate(rows(node, where))]
        for position, word in enumerate(words):
            if word not in known:
                raise InvalidInput(f"{where}[{position}]", Rule.MALFORMED, repr(word), nearest(word, known))
            if word in words[:position]:
                raise InvalidInput(f"{where}[{position}]", Rule.NAME_REUSED, repr(word), "each word once")
        return OneOf(fact.name, tuple(words))

    def _compared(self, fact: Quantity, node: Node, where: str, beside: Mapping[str, Node]) -> Compared:
        written = text(node, where)
        match = _COMPARED.fullmatch(written)
        if match is None:
            want = "words, then a bound with its unit: " + ", ".join(f"{c} ..." for c in Comparator)
            raise InvalidInput(where, Rule.MALFORMED, repr(written), want)
        comparator, bound = Comparator(match[1]), match[2]
        if bound.partition(" ")[0] == "limit":
            return Compared(fact.name, comparator, self._limit(fact, bound.removeprefix("limit").strip(), where), bound)
        if fact.measure is Measure.USD:
            return Compared(fact.name, comparator, micro_usd(bound, where), bound)
        if fact.measure is Measure.TIME:
            return Compared(fact.name, comparator, duration(bound, where), bound)
        return Compared(fact.name, comparator, units(bound, self._only_asset(beside, where), where), bound)

    def _limit(self, fact: Quantity, name: str, where: str) -> LimitName:
        if fact.measure is not Measure.NATIVE:
            raise InvalidInput(
                where,
                Rule.MALFORMED,
                f"limit {name}",
                f"a bound in {fact.measure}: limits are amounts of the asset itself",
            )
        if name not in self._limits:
            raise InvalidInput(
                where, Rule.MALFORMED, f"limit {name}", f"a limit of limits.yaml: {nearest(name, self._limits)}"
            )
        return LimitName(name)

    def _only_asset(self, beside: Mapping[str, Node], where: str) -> Asset:
        """The one asset a bound in its own unit is about; 5 of an unnamed asset is no amount."""
        named = beside.get("asset")
        if not isinstance(named, list) or len(named) != 1:
            raise InvalidInput(
                where,
                Rule.MALFORMED,
                "an amount with no asset beside it",
                "'limit NAME', or asset: [ONE] in the same part",
            )
        return self._assets.get(text(named[0], where), where)

    def _check_route(self, when: tuple[Condition, ...]) -> None:
        words = {c.fact: c.words for c in when if isinstance(c, OneOf)}
        for name in ("from", "to", "purpose"):
            if name not in words:
                raise InvalidInput(
                    f"{self._where}.when", Rule.MALFORMED, f"no {name!r}", "a permit names from, to and purpose"
                )
        internal = Destination.INTERNAL_WALLET in words["to"]
        if internal != ("to_tier" in words) or (internal and len(words["to"]) > 1):
            want = "to_tier beside to: [internal_wallet] alone, and nowhere else"
            raise InvalidInput(f"{self._where}.when", Rule.MALFORMED, f"to: [{', '.join(words['to'])}]", want)

    def _check_automatic(self, rule: PolicyRule) -> None:
        where = f"{self._where}.automatic_when"
        tiers = next(c.words for c in rule.when if isinstance(c, OneOf) and c.fact == "from")
        if Tier.CUSTOMER_COLD in tiers:
            raise InvalidInput(
                where, Rule.MALFORMED, "customer_cold in from", "nothing leaves cold automatically (DESIGN.md, law 3)"
            )
        capped = {c.fact for c in rule.automatic_when if isinstance(c, Compared)}
        for missing in {"amount", "usd"} - capped:
            raise InvalidInput(
                where, Rule.MALFORMED, f"no cap on {missing}", "a native cap, a USD cap and a rolling-window cap"
            )
        if not capped & set(WINDOWS):
            raise InvalidInput(where, Rule.MALFORMED, "no rolling-window cap", "a cap on one of " + ", ".join(WINDOWS))


def _fact(name: str, where: str) -> Fact:
    if name in VOCABULARY:
        return VOCABULARY[name]
    if name in IDENTITIES:
        want = "a fact that names nobody: no rule singles out a customer, entity, person or wallet"
        raise InvalidInput(where, Rule.MALFORMED, f"identity {name!r}", want)
    if name in _LOGIC:
        raise InvalidInput(
            where, Rule.MALFORMED, repr(name), "facts only: conditions are joined by AND; write another rule"
        )
    if name[:1].isdigit():
        want = "a bound with a comma in quotes: inside { } YAML takes the comma for the end"
        raise InvalidInput(where, Rule.MALFORMED, f"unknown fact {name!r}", want)
    raise InvalidInput(where, Rule.MALFORMED, f"unknown fact {name!r}", nearest(name, VOCABULARY))


def _says(fact: Flag, node: Node, where: str) -> Says:
    if node not in ("true", "false"):
        raise InvalidInput(where, Rule.MALFORMED, repr(node), "true or false")
    return Says(fact.name, node == "true")


def _polarity(fact: Flag | Quantity) -> str:
    if isinstance(fact, Flag):
        return f"{fact.name}: {'true' if fact.tightens else 'false'} may only tighten"
    return f"{fact.name}: {fact.polarity}"
