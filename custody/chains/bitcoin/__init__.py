# SPDX-License-Identifier: AGPL-3.0-or-later
"""One Bitcoin network: its node, its P2WSH wallets, and a second opinion on both."""
