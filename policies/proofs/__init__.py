# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proofs about bundles: claims, built-in obligations, the difference in meaning of two bundles, and rules that do nothing.

Only commands and tests import this: the solver is a tool of reviewers and never part of a process that signs.
"""
