# SPDX-License-Identifier: AGPL-3.0-or-later
"""The laws are code: no name in it offers a way round them, and every file says under which licence it stands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(
    file for room in ("custody", "policies", "api", "devnet", "tests") for file in (ROOT / room).rglob("*.py")
)
FORBIDDEN: Final = frozenset({"override", "force", "skip", "bypass"})
LICENCE: Final = "# SPDX-License-Identifier: AGPL-3.0-or-later\n"


def names(tree: ast.AST) -> Iterator[str]:
    """Every identifier that a module makes or uses: functions, classes, arguments, keywords, attributes, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.alias(name=name, asname=other):
                yield from (name, other or name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.Global(names=several) | ast.Nonlocal(names=several):
                yield from several


SPELLED_BY_OTHERS: Final = {"ssl_target_name_override"}
"""Arguments of libraries: grpclib's for the name in a server's certificate."""


def parts(name: str) -> set[str]:
    """The words of an identifier: snake_case, camelCase and dotted; "in force", said of a policy, is one word."""
    rest = re.sub(r"(?i)in_?force(?![a-z])", "", name)
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", rest)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_name_offers_a_way_round(file: Path) -> None:
    """`override`, `force`, `skip` and `bypass` name nothing (DESIGN.md, "The five laws")."""
    found = {name for name in names(ast.parse(file.read_text("utf-8"))) if parts(name) & FORBIDDEN}
    assert found <= SPELLED_BY_OTHERS


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_names_its_licence(file: Path) -> None:
    """The first line is the SPDX line, exactly."""
    with file.open(encoding="utf-8") as lines:
        assert lines.readline() == LICENCE


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param("def force_send(): ...", True, id="function"),
        pytest.param("pay(skip=True)", True, id="keyword"),
        pytest.param("wallet.bypassLimits", True, id="camel case attribute"),
        pytest.param("class Override: ...", True, id="class"),
        pytest.param("from x import y as force", True, id="alias"),
        pytest.param("def pay(*, override=None): ...", True, id="argument"),
        pytest.param("do_force = 1", True, id="part of a name"),
        pytest.param("policy.in_force; InForce; IN_FORCE = 1", False, id="a policy in force"),
        pytest.param("enforced = 'skip'", False, id="another word, and a string"),
    ],
)
def test_the_search_finds_what_it_is_for(code: str, found: bool) -> None:
    """The walk sees each place where a name can stand."""
    assert any(parts(name) & FORBIDDEN for name in names(ast.parse(code))) is found
