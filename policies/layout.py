# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a bundle's files are laid out, so that a diff in git shows what changed and nothing else. No text, so no hash, changes.

Comments stay where they are. Keys of a rule stand in one order, indentation is one, lines end where the file's writer ended them.
"""

import io
from collections.abc import Mapping
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from custody.rules.errors import InvalidInput
from custody.rules.ledger import canonical
from custody.rules.refusals import Rule
from policies.strict_yaml import parse

WIDTH: Final = 140
_ORDER: Final = ("id", "kind", "why", "when", "then", "approvals", "displaying", "delay", "automatic_when")


def laid_out(raw: bytes, name: str) -> bytes:
    """The same document in the one layout. Raises InvalidInput where the file is not readable in the first place.

    What is written is read again: anything but the very same document is refused, and the file stays as it is.
    """
    node = parse(raw, name)
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = WIDTH, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(raw.decode("ascii"))
    if isinstance(document, Mapping):
        for rows in (document.get("rules"), document.get("claims")):
            for row in rows if isinstance(rows, list) else ():
                _order(row)
    out = io.StringIO()
    yaml.dump(document, out)
    fresh = "\n".join(line.rstrip() for line in out.getvalue().split("\n")).encode("ascii")
    if canonical({"": parse(fresh, name)}) != canonical({"": node}):
        raise InvalidInput(
            name, Rule.MALFORMED, "another document after it was laid out", "the same; lay it out by hand"
        )
    return fresh


def _order(row: object) -> None:
    """Known keys first, in order. A row with comments between its keys is left alone: they would lose their place."""
    if not isinstance(row, CommentedMap):
        return
    present = [key for key in _ORDER if key in row]
    if [key for key in row if key in _ORDER] == present or row.ca.items:
        return
    for key in (*present, *(key for key in row if key not in _ORDER)):
        row.move_to_end(key)
