# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a reviewer sees and another reader of YAML does not: untyped words that have a type elsewhere, comments that look like rules.

Our own reader types nothing, so none of these changes what a bundle means here. They are refused because people, editors and other
tools read the same file: whoever reviews `22:00` or a rule behind `#` must not be shown one thing while another is in force.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import yaml

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from policies.vocabulary import VOCABULARY

_RESOLVER: Final = yaml.resolver.Resolver()
_TEXT: Final = "tag:yaml.org,2002:str"
_PLAIN: Final = re.compile(r"true|false|0|[1-9][0-9]*")
"""What every reader takes for the same: two words and whole numbers."""
_ALSO: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|0o[0-7]+")
_RULE_LIKE: Final = re.compile(r"#+ *(?:- *)?([a-z][a-z0-9_]*) *:(?: |$)")
_KEYS: Final = frozenset(
    [
        "id",
        "kind",
        "why",
        "when",
        "then",
        "approvals",
        "delay",
        "automatic_when",
        "people",
        "more_than",
        "most",
        "per_day",
        "owners",
        "group",
        "symbol",
        "chain",
        "decimals",
        "contract",
        "dust",
        "final",
        "at_most",
        "swept_per_day",
        "maturity",
    ]
) | frozenset(VOCABULARY)
"""Words that decide something in a bundle."""


def check_traps(text: str, tokens: Iterable[yaml.Token], name: str) -> None:
    """Refuse every trap of a file, given with its tokens, with its line. Raises InvalidInput with what to write instead."""
    spans: list[tuple[int, int]] = []
    for token in tokens:
        if isinstance(token, yaml.ScalarToken):
            spans.append((token.start_mark.index, token.end_mark.index))
            if token.plain:
                _check_plain(token, f"{name}:{token.start_mark.line + 1}")
    for line, comment in _comments(text, spans):
        if (found := _RULE_LIKE.match(comment)) and found[1] in _KEYS:
            got = f"a comment that reads like {found[1]!r} of a rule"
            want = "no rules behind #: delete it (git remembers), or write it as a sentence"
            raise InvalidInput(f"{name}:{line}", Rule.MALFORMED, got, want)


def _check_plain(token: yaml.ScalarToken, where: str) -> None:
    value = str(token.value)
    newer = "tag:yaml.org,2002:float" if _ALSO.fullmatch(value) else ""  # YAML 1.2 types what 1.1 leaves as text
    tag = newer or str(_RESOLVER.resolve(yaml.ScalarNode, value, (True, False)))  # type: ignore[no-untyped-call]
    if tag != _TEXT and _PLAIN.fullmatch(value) is None:
        meant = tag.rpartition(":")[2]
        got = f"{value!r} without quotes, which other readers of YAML take for a {meant}"
        raise InvalidInput(where, Rule.MALFORMED, got, f'"{value}" in quotes, or a word with its unit')


def _comments(text: str, spans: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """Every comment with its line: from a # that begins a line or follows a space, outside every scalar."""
    start, position = 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(r"(?:^|(?<= ))#.*", line):
            at = start + match.start()
            while position < len(spans) and spans[position][1] <= at:
                position += 1
            if position == len(spans) or not spans[position][0] <= at < spans[position][1]:
                yield number, match.group()
                break
        start += len(line) + 1
