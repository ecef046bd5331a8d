# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults on the real parts: what a withdrawal does while servers, nodes, disks, clocks and processes fail under it."""
