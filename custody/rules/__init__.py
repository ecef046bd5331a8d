# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pure rules: no I/O, no clock, no driver. They know nothing but each other."""
