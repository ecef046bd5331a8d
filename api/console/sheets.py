# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that people open in a spreadsheet: one line of CSV at a time, and no cell that would run as a formula."""

import csv
import io
import re
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def cells(*values: object) -> str:
    """One line. A cell that a spreadsheet would take for a formula begins with an apostrophe; numbers stay numbers."""
    told = [str(value) for value in values]
    safe = ["'" + each if each.startswith(_FORMULA) and _NUMBER.fullmatch(each) is None else each for each in told]
    made = io.StringIO()
    csv.writer(made, lineterminator="\r\n").writerow(safe)
    return made.getvalue()
