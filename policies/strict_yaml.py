# SPDX-License-Identifier: AGPL-3.0-or-later
"""A YAML reader that types nothing and forgives nothing: every scalar stays the text a reviewer saw (facts: PyYAML's traps)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import yaml

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from policies.yaml_traps import check_traps

Node = str | list["Node"] | dict[str, "Node"]

_FORBIDDEN: Final = {
    yaml.AnchorToken: "an anchor",
    yaml.AliasToken: "an alias",
    yaml.TagToken: "a tag",
    yaml.DirectiveToken: "a directive",
    yaml.DocumentEndToken: "a second document",
}
_OPENS: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_PLAIN: Final = re.compile(r"[\x20-\x7e\n]*")
_DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class Located:
    """What a file says, and on which line each part of it stands. Paths look like `rules.yaml:rules[3].when.usd`."""

    node: Node
    lines: Mapping[str, int]


def read(path: Path) -> Node:
    """Read one file. Refuses duplicate keys, anchors, aliases, merges, tags, several documents and anything beyond ASCII.

    Raises InvalidInput naming file and line; there is no second guess.
    """
    return locate(path).node


def parse(raw: bytes, name: str) -> Node:
    """Read YAML text under a name used in errors."""
    return parse_located(raw, name).node


def locate(path: Path) -> Located:
    """Read one file as `read` does, and keep the lines."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInput(str(path.name), Rule.MALFORMED, str(error.strerror), "a readable file") from error
    return parse_located(raw, path.name)


def parse_located(raw: bytes, name: str) -> Located:
    """Read YAML text as `parse` does, and keep the lines."""
    found = _located(raw, name)
    return Located(_copied(found.node), found.lines)


@lru_cache(maxsize=64)  # a comparison of bundles reads the same files many times, and PyYAML's scanner is slow
def _located(raw: bytes, name: str) -> Located:
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.isascii():
            raise InvalidInput(
                f"{name}:{number}", Rule.MALFORMED, repr(line[:40]), "ASCII only (look-alike letters mislead)"
            )
        # A carriage return or an escape sequence shows a reviewer at a terminal another line than the one that counts.
        if _PLAIN.fullmatch(line.decode("ascii")) is None:
            raise InvalidInput(f"{name}:{number}", Rule.MALFORMED, repr(line[:40]), "no tabs and no control characters")
    text = raw.decode("ascii")
    try:
        tokens = list(yaml.scan(text, Loader=yaml.BaseLoader))
        _check_tokens(tokens, name)
        check_traps(text, tokens, name)
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise InvalidInput(where, Rule.MALFORMED, str(getattr(error, "problem", error)), "valid YAML") from error
    if root is None:
        raise InvalidInput(name, Rule.MALFORMED, "an empty file", "a mapping")
    lines: dict[str, int] = {}
    return Located(_plain(root, name, f"{name}:", lines), lines)


def _check_tokens(tokens: Iterable[yaml.Token], name: str) -> None:
    """Before anything is built: nothing forbidden, and no nesting that would exhaust whoever builds it."""
    depth = 0
    for token in tokens:
        where = f"{name}:{token.start_mark.line + 1}"
        for kind, what in _FORBIDDEN.items():
            if isinstance(token, kind):
                raise InvalidInput(where, Rule.MALFORMED, what, "plain YAML without it")
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if depth > _DEEPEST:
            raise InvalidInput(where, Rule.MALFORMED, "very deep nesting", f"at most {_DEEPEST} levels")


def _plain(node: yaml.Node, name: str, path: str, lines: dict[str, int]) -> Node:
    where = f"{name}:{node.start_mark.line + 1}"
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return check_text(str(node.value), where)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name, f"{path}[{i}]", lines) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "a mapping, a list or text")
    found: dict[str, Node] = {}
    for key, value in node.value:
        where = f"{name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise InvalidInput(where, Rule.MALFORMED, "a merge or a key that is no text", "a plain key")
        if check_text(key.value, where) in found:
            raise InvalidInput(where, Rule.NAME_REUSED, repr(key.value), "each key once")
        below = f"{path}{key.value}" if path.endswith(":") else f"{path}.{key.value}"
        lines[below] = key.start_mark.line + 1
        found[key.value] = _plain(value, name, below, lines)
    return found


def _copied(node: Node) -> Node:
    """Another one of the same: what a reader does to its own changes nobody else's."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(item) for item in node] if isinstance(node, list) else node


def check_text(text: str, where: str) -> str:
    r"""Text that reads the same for everybody: a quoted "\u0430" is ASCII in the file and another alphabet in the value."""
    if _PLAIN.fullmatch(text) is None:
        raise InvalidInput(where, Rule.MALFORMED, ascii(text[:40]), "printable ASCII, escapes included")
    return text


def check_node(data: object, where: str, depth: int = 0) -> Node:
    """A document that arrived as JSON, held to what a file is held to: text, lists and mappings of printable ASCII."""
    if depth > _DEEPEST:
        raise InvalidInput(where, Rule.MALFORMED, "very deep nesting", f"at most {_DEEPEST} levels")
    if isinstance(data, str):
        return check_text(data, where)
    if isinstance(data, list):
        return [check_node(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(data)]
    if isinstance(data, dict) and all(isinstance(key, str) for key in data):
        return {check_text(key, where): check_node(value, f"{where}.{key}", depth + 1) for key, value in data.items()}
    raise InvalidInput(where, Rule.MALFORMED, type(data).__name__, "a mapping, a list or text")
