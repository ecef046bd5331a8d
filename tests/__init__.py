# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tests. A package, because bitcoinlib installs a top-level `tests` that would otherwise be found first."""
