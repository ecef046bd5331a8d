# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults that take long run only where they are asked for: `pytest tests/faults -m "faults or not faults"`, `make faults`."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "faults: a fault on the real parts that takes long; make faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `-m` the long ones of this folder are left out."""
    if config.option.markexpr:
        return
    long = [item for item in items if item.path.is_relative_to(_HERE) and item.get_closest_marker("faults")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]
