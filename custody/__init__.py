# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bulkhead's custody core: rules that decide, flows that happen, adapters that touch the world."""
