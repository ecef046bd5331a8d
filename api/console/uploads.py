# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files that people bring to a page: JSON of bounded size, read strictly."""

from typing import Any, Final

from fastapi import UploadFile

from custody.rules.errors import InvalidInput
from custody.rules.json_text import read_json
from custody.rules.refusals import Rule

FILE_MOST: Final = 120 * 1024
"""Bytes; two of them fit into a form (`security.BODY_BYTES`)."""


def read_upload(file: UploadFile, name: str, writer: str) -> Any:  # noqa: ANN401  # whatever its reader makes of it
    """The JSON of a file that `writer` wrote. Raises InvalidInput naming the field: malformed, body_too_large."""
    raw = file.file.read(FILE_MOST + 1)
    if len(raw) > FILE_MOST:
        raise InvalidInput(name, Rule.BODY_TOO_LARGE, f"over {FILE_MOST} bytes", f"at most {FILE_MOST} bytes")
    try:
        return read_json(raw.decode("utf-8"), name)
    except UnicodeDecodeError as error:
        want = f"JSON, as {writer} wrote it"
        raise InvalidInput(name, Rule.MALFORMED, "bytes that are no UTF-8", want) from error
