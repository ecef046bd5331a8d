# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ratios, never single times. `python -m tests.bench` runs every bench; nothing here is part of the test command."""
