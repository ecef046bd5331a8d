# SPDX-License-Identifier: AGPL-3.0-or-later
"""On real nodes, vaults and processes."""
