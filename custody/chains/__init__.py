# SPDX-License-Identifier: AGPL-3.0-or-later
"""Adapters to chains: each kind of chain speaks through `flows.ports.ChainView`."""
