# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stand-ins for the outside that keep its contract (tests/contract runs one suite on both)."""
