# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where Bulkhead keeps its local files: the one place that resolves it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "BULKHEAD_HOME"


def bulkhead_home(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of all local state: $BULKHEAD_HOME, or `.bulkhead` in the checkout or the current folder."""
    configured = (os.environ if environment is None else environment).get(HOME_VARIABLE)
    if configured:
        return Path(configured).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    base = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
    return base / ".bulkhead"


def bulkhead_program() -> Path:
    """The `bulkhead` of this very environment."""
    return Path(sys.executable).parent / "bulkhead"


def binary_cache() -> Path:
    """The folder of fetched programs; shared by every network on this machine that uses the same home."""
    return bulkhead_home() / "cache"
