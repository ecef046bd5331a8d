# SPDX-License-Identifier: AGPL-3.0-or-later
"""The YAML reader types nothing and forgives nothing (facts: PyYAML's traps)."""

import re
from pathlib import Path

import pytest

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from policies.strict_yaml import Node, check_node, parse, parse_located, read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('delay: "22:00"', {"delay": "22:00"}, id="22:00 is no 1320"),
        pytest.param('country: "no"', {"country": "no"}, id="no is no False"),
        pytest.param('a: "1e3"', {"a": "1e3"}, id="no float"),
        pytest.param('a: "010"', {"a": "010"}, id="no octal"),
        pytest.param('a: "1_000"', {"a": "1_000"}, id="no underscores read away"),
        pytest.param('a: "~"', {"a": "~"}, id="no null"),
        pytest.param("a:", {"a": ""}, id="nothing is empty text"),
        pytest.param('a: "2026-01-01"', {"a": "2026-01-01"}, id="no date"),
        pytest.param("[a, 'b', \"c\"]", ["a", "b", "c"], id="quotes of both kinds"),
        pytest.param("a: 'x # usd: 5' # said in a sentence: fine", {"a": "x # usd: 5"}, id="no comment inside quotes"),
        pytest.param("a: true\nb: 18", {"a": "true", "b": "18"}, id="what every reader takes for the same"),
        pytest.param("a: {b: [c]}  # because", {"a": {"b": ["c"]}}, id="flow style and a comment"),
        pytest.param("why: >\n  one\n  two\n", {"why": "one two\n"}, id="folded text"),
    ],
)
def test_everything_stays_the_text_that_was_written(text: str, said: Node) -> None:
    """Scalars come out as a reviewer saw them."""
    assert parse(text.encode(), "x.yaml") == said


@pytest.mark.parametrize(
    ("raw", "where", "rule"),
    [
        *(
            pytest.param(f"b: c\na: {value}".encode(), "x.yaml:2", Rule.MALFORMED, id=f"{value} without quotes")
            for value in (
                "22:00",
                "no",
                "On",
                "yes",
                "True",
                "1e3",
                "1.5",
                ".inf",
                "010",
                "0x10",
                "0o17",
                "1_000",
                "-1",
                "~",
                "null",
                "2026-01-01",
            )
        ),
        pytest.param(b"a: b\n# - id: P99-hidden", "x.yaml:2", Rule.MALFORMED, id="a rule behind a comment"),
        pytest.param(
            b"a: at most 5 BTC # usd: at most 5 USD", "x.yaml:1", Rule.MALFORMED, id="a condition behind a comment"
        ),
        pytest.param(b"a:\n  # when:\n  - b", "x.yaml:2", Rule.MALFORMED, id="a part behind a comment"),
        pytest.param(b"a: 1\nb: 2\na: 3", "x.yaml:3", Rule.NAME_REUSED, id="duplicate key"),
        pytest.param(b"a:\n  - b: 1\n    b: 2", "x.yaml:3", Rule.NAME_REUSED, id="duplicate key deep inside"),
        pytest.param(b"a: 1\n'a': 2", "x.yaml:2", Rule.NAME_REUSED, id="duplicate under quotes"),
        pytest.param(b"a: &x 1", "x.yaml:1", Rule.MALFORMED, id="anchor"),
        pytest.param(b"a: &x 1\nb: *x", "x.yaml:1", Rule.MALFORMED, id="alias"),
        pytest.param(b"a: {b: 1}\nc:\n  <<: {b: 2}", "x.yaml:3", Rule.MALFORMED, id="merge"),
        pytest.param(b"a: !!str 1", "x.yaml:1", Rule.MALFORMED, id="tag"),
        pytest.param(b"a: !python/object:os.system x", "x.yaml:1", Rule.MALFORMED, id="python tag"),
        pytest.param(b"%YAML 1.1\n---\na: 1", "x.yaml:1", Rule.MALFORMED, id="directive"),
        pytest.param(b"a: 1\n---\nb: 2", "x.yaml:2", Rule.MALFORMED, id="two documents"),
        pytest.param(b"a: 1\n...\n", "x.yaml:2", Rule.MALFORMED, id="end of document"),
        pytest.param(b"? [a]\n: 1", "x.yaml:1", Rule.MALFORMED, id="a list as a key"),
        pytest.param("a: 1\nb: \u0430na".encode(), "x.yaml:2", Rule.MALFORMED, id="Cyrillic look-alike"),
        pytest.param(
            "# \u202e a comment".encode(), "x.yaml:1", Rule.MALFORMED, id="right-to-left override in a comment"
        ),
        pytest.param(b'a: "\\u0430na"', "x.yaml:1", Rule.MALFORMED, id="look-alike by escape"),
        pytest.param(b'"\\u0430": 1', "x.yaml:1", Rule.MALFORMED, id="look-alike by escape in a key"),
        pytest.param(b'a: "x\\ty"', "x.yaml:1", Rule.MALFORMED, id="control character by escape"),
        pytest.param(
            b"a: 1\nb: 2 # \x1b[1A\x1b[2K", "x.yaml:2", Rule.MALFORMED, id="terminal escape that hides a line"
        ),
        pytest.param(b"a: 1 # fine\rb: 2", "x.yaml:1", Rule.MALFORMED, id="carriage return that hides a line"),
        pytest.param(b"a:\t1", "x.yaml:1", Rule.MALFORMED, id="tab"),
        pytest.param(b"\xff\xfea", "x.yaml:1", Rule.MALFORMED, id="UTF-16"),
        pytest.param(b"", "x.yaml", Rule.MALFORMED, id="empty"),
        pytest.param(b"# only a comment\n", "x.yaml", Rule.MALFORMED, id="nothing but a comment"),
        pytest.param(b"a: [1", "x.yaml:1", Rule.MALFORMED, id="unclosed"),
        pytest.param(b"[" * 30 + b"]" * 30, "x.yaml:1", Rule.MALFORMED, id="too deep"),
        pytest.param(b"[" * 5000 + b"]" * 5000, "x.yaml:1", Rule.MALFORMED, id="far too deep"),
    ],
)
def test_refused_with_file_and_line(raw: bytes, where: str, rule: Rule) -> None:
    """Every trap, and where it stands."""
    with pytest.raises(InvalidInput) as caught:
        parse(raw, "x.yaml")
    assert (caught.value.rule, re.match(r"[^ ]*", caught.value.field)[0]) == (rule, where)  # type: ignore[index]


def test_each_part_knows_its_line() -> None:
    """Paths look like the ones that readers of documents use in their errors."""
    lines = parse_located(b"rules:\n  - id: a\n    when:\n      usd: x\n  - id: b\n", "r.yaml").lines
    assert lines["r.yaml:rules[0].when.usd"] == 4
    assert lines["r.yaml:rules[1]"] == 5
    assert lines["r.yaml:rules"] == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Missing is invalid input, not an empty document."""
    with pytest.raises(InvalidInput, match="a readable file"):
        read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(1, id="number"),
        pytest.param(None, id="null"),
        pytest.param({"a": True}, id="boolean"),
        pytest.param([1.5], id="float"),
        pytest.param({"a": ["\u0430"]}, id="look-alike"),
        pytest.param({1: "a"}, id="key that is no text"),
        pytest.param({"a\x00": "b"}, id="control character in a key"),
    ],
)
def test_documents_from_json_are_held_to_the_same(data: object) -> None:
    """A bundle that reaches a seat as JSON has no softer reader than the file had."""
    with pytest.raises(InvalidInput):
        check_node(data, "rules")
    assert check_node({"a": ["b", {"c": "d\n"}]}, "rules") == {"a": ["b", {"c": "d\n"}]}
