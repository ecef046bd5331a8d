# SPDX-License-Identifier: AGPL-3.0-or-later
"""A YAML reader that types nothing and forgives nothing: every scalar stays the text a reviewer saw (facts: PyYAML's traps)."""

from pathlib import Path
from typing import Final

import yaml

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

Node = str | list["Node"] | dict[str, "Node"]

_FORBIDDEN: Final = {
    yaml.AnchorToken: "an anchor",
    yaml.AliasToken: "an alias",
    yaml.TagToken: "a tag",
    yaml.DirectiveToken: "a directive",
    yaml.DocumentEndToken: "a second document",
}


def read(path: Path) -> Node:
    """Read one file. Refuses duplicate keys, anchors, aliases, merges, tags, several documents and anything beyond ASCII.

    Raises InvalidInput naming file and line; there is no second guess.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInput(str(path.name), Rule.MALFORMED, str(error.strerror), "a readable file") from error
    return parse(raw, path.name)


def parse(raw: bytes, name: str) -> Node:
    """Read YAML text under a name used in errors."""
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.isascii():
            raise InvalidInput(f"{name}:{number}", Rule.MALFORMED, repr(line[:40]), "ASCII only (look-alike letters mislead)")
    text = raw.decode("ascii")
    try:
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            for kind, what in _FORBIDDEN.items():
                if isinstance(token, kind):
                    raise InvalidInput(f"{name}:{token.start_mark.line + 1}", Rule.MALFORMED, what, "plain YAML without it")
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise InvalidInput(where, Rule.MALFORMED, str(getattr(error, "problem", error)), "valid YAML") from error
    if root is None:
        raise InvalidInput(name, Rule.MALFORMED, "an empty file", "a mapping")
    return _plain(root, name)


def _plain(node: yaml.Node, name: str) -> Node:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        raise InvalidInput(name, Rule.MALFORMED, type(node).__name__, "a mapping, a list or text")
    found: dict[str, Node] = {}
    for key, value in node.value:
        where = f"{name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise InvalidInput(where, Rule.MALFORMED, "a merge or a key that is no text", "a plain key")
        if key.value in found:
            raise InvalidInput(where, Rule.NAME_REUSED, repr(key.value), "each key once")
        found[key.value] = _plain(value, name)
    return found
