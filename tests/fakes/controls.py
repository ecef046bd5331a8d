# SPDX-License-Identifier: AGPL-3.0-or-later
"""Takes one refusal out of a function, so that a test can show what stops an attack, and what stops it when that is gone.

A control is a statement that refuses: it returns, yields, collects or raises a refusal of one rule. It is taken out of the source and
the rest is compiled anew; nothing of it is stubbed. What a module refuses by is read from its source too, so a table of attacks that
misses a control, or that two controls stop, is told.
"""

import ast
import copy
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refused, Rule

_REFUSING: Final = frozenset(("Refusal", "InvalidInput"))
_ROOMS: Final = ("custody.", "api.")


@dataclass(frozen=True)
class Control:
    """The refusal of one rule in one function; `nth` where the function refuses by it in several places."""

    function: Callable[..., Any]
    rule: Rule
    nth: int = 1

    def __str__(self) -> str:
        return _spelled(self.function.__qualname__, self.rule, self.nth)

    def take_away(self, patch: pytest.MonkeyPatch) -> None:
        """Put the function without it in its place, wherever it is known by name."""
        function = inspect.unwrap(self.function)
        # two controls of one function: what the first left is what the second is taken from
        held = getattr(_holder(function), function.__name__)
        source: ast.FunctionDef = copy.deepcopy(getattr(held, "tree", None) or _tree(function))
        if not _Without(self.rule, self.nth).left(source):
            raise AssertionError(f"there is no {self}")
        made: dict[str, Any] = {}
        module = ast.fix_missing_locations(ast.Module([source], []))
        exec(compile(module, inspect.getfile(function), "exec"), function.__globals__, made)  # noqa: S102  # our own source
        new = made[function.__name__]
        new.tree = source
        if (owner := _holder(function)) is not sys.modules[function.__module__]:
            patch.setattr(owner, function.__name__, new)
            return
        for name, known in list(sys.modules.items()):
            if name.startswith(_ROOMS) and getattr(known, function.__name__, None) is held:
                patch.setattr(known, function.__name__, new)


def _spelled(function: str, rule: Rule, nth: int) -> str:
    return f"{function} {rule}" + (f" #{nth}" if nth > 1 else "")


def _holder(function: Callable[..., Any]) -> Any:
    """The class of a method, else the module."""
    found: Any = sys.modules[function.__module__]
    for name in function.__qualname__.split(".")[:-1]:
        found = getattr(found, name)
    return found


@cache
def _tree(function: FunctionType) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree


def _rules_refused(node: ast.AST) -> Iterator[Rule]:
    """The rules of every refusal that is made somewhere below."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _REFUSING:
            for named in (part for argument in call.args for part in ast.walk(argument)):
                if isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name) and named.value.id == "Rule":
                    yield Rule[named.attr]


def _refuses_by(node: ast.AST, rule: Rule) -> bool:
    """Whether this is a plain statement that makes a refusal of the rule."""
    return isinstance(node, ast.stmt) and not hasattr(node, "body") and rule in _rules_refused(node)


class _Without(ast.NodeTransformer):
    """Makes the n-th statement that refuses by a rule one that is never reached; a generator stays one."""

    def __init__(self, rule: Rule, nth: int) -> None:
        self._rule, self._nth, self._seen = rule, nth, 0
        self._gone = self._up = False

    def left(self, function: ast.FunctionDef) -> bool:
        """Whether it was there; the function is left without it."""
        self.visit(function)
        return self._gone

    def visit_If(self, node: ast.If) -> ast.If:
        """A branch that gives its refusal a name is not taken at all."""
        self.generic_visit(node)
        if self._up:
            self._up = False
            node.test = ast.Constant(value=False)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Fence the statement off."""
        if not _refuses_by(node, self._rule):
            return super().generic_visit(node)
        self._seen += 1
        if self._seen != self._nth:
            return node
        self._gone, self._up = True, isinstance(node, ast.Assign)
        return node if self._up or not isinstance(node, ast.stmt) else ast.If(ast.Constant(value=False), [node], [])


def controls_of(module: ModuleType) -> set[str]:
    """Every refusal that a module's source makes, as a `Control` spells it."""
    found: set[str] = set()
    for name, function in _functions(ast.parse(inspect.getsource(module)), ""):
        counted = Counter(rule for node in ast.walk(function) for rule in Rule if _refuses_by(node, rule))
        found |= {_spelled(name, rule, nth) for rule, number in counted.items() for nth in range(1, number + 1)}
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


Attempt = Callable[[], set[Rule]]
"""Tries the attack: the rules that refuse it; none where it succeeds."""


@dataclass(frozen=True)
class Case:
    """An attack that these controls stop, each of them by itself, and nothing else in the room does.

    `prepare` sets the scene with every control in its place. `behind` is what refuses when all of them are gone: another room's
    control, or the same finding in more general words.
    """

    id: str
    controls: tuple[Control, ...]
    prepare: Callable[[], Attempt]
    behind: frozenset[Rule] = frozenset()

    def check(self) -> None:
        """Refused by exactly these; still refused while one of them is left; let through without them."""
        every = {control.rule for control in self.controls}
        refusing = self.prepare()()
        assert refusing == every, f"{self.id}: refused by {refusing}, not by {every}"
        for gone in combinations(self.controls, len(self.controls) - 1) if len(self.controls) > 1 else ():
            assert self._tried(gone), f"refused by nobody without {[str(c) for c in gone]}"
        behind = self._tried(self.controls)
        assert behind == self.behind, f"{self.id}: without its controls refused by {behind}"

    def _tried(self, without: Sequence[Control]) -> set[Rule]:
        attempt = self.prepare()
        with pytest.MonkeyPatch.context() as patch:
            for control in without:
                control.take_away(patch)
            return attempt()


def check_complete(modules: Sequence[ModuleType], cases: Sequence[Case], besides: Mapping[str, str]) -> None:
    """Every refusal of these modules is in the table, or told why it cannot be attacked alone; nothing is told in vain."""
    there = {name for module in modules for name in controls_of(module)}
    shown = {str(control) for case in cases for control in case.controls}
    untried, twice, vain = there - shown - besides.keys(), besides.keys() & shown, besides.keys() - there
    assert not untried, f"no attack that only these stop: {sorted(untried)}"
    assert not twice, f"in the table, and told why not: {sorted(twice)}"
    assert not vain, f"told why not, and not there: {sorted(vain)}"


def rules_against(attempt: Callable[[], object]) -> set[Rule]:
    """The rules by which something is refused; none if it is not."""
    try:
        attempt()
    except Refused as refused:
        return {refusal.rule for refusal in refused.refusals}
    except InvalidInput as error:
        return {Rule(error.rule)}
    return set()
