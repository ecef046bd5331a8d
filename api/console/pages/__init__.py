# SPDX-License-Identifier: AGPL-3.0-or-later
"""One module a page: each has a `PAGE` (registry.py). What stands here is found by itself."""
