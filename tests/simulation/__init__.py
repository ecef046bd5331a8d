# SPDX-License-Identifier: AGPL-3.0-or-later
"""A deterministic simulation: the real rules, flows, store and seats over simulated chains, clock, crashes and hostile hands."""
