# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bulkhead's custody core: rules that decide, flows that happen, adapters that touch the world."""

import os

from custody import lazy_curves

# EIP-712 hashes are most of a decision's time; what eth-hash takes by itself, pycryptodome, is three times slower. It looks at its
# first hash and checks the backend against a known one then. An operator's own choice stands.
os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

lazy_curves.wait()
