# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that people take away, written as they are sent: JSON lines, and CSV in which no cell would run as a formula."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Final

from starlette.responses import StreamingResponse

_KINDS: Final = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def attachment(rows: Iterator[str], name: str) -> StreamingResponse:
    """Rows as a file of a kind that its name's ending tells, read while they are sent; no cache keeps it."""
    told = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(rows, media_type=_KINDS[name.rpartition(".")[2]], headers=told)


def cells(*values: object) -> str:
    """One line. A cell that a spreadsheet would take for a formula begins with an apostrophe; numbers stay numbers."""
    told = [str(value) for value in values]
    safe = ["'" + each if each.startswith(_FORMULA) and _NUMBER.fullmatch(each) is None else each for each in told]
    made = io.StringIO()
    csv.writer(made, lineterminator="\r\n").writerow(safe)
    return made.getvalue()
