# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP API: proposes and records; holds no key and reaches no chain (First light)."""
