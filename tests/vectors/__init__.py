# SPDX-License-Identifier: AGPL-3.0-or-later
"""Golden vectors: what is signed, byte for byte. A change here invalidates every stored signature (TRUST.md)."""
