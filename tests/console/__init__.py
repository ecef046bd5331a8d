# SPDX-License-Identifier: AGPL-3.0-or-later
"""The console in a real browser, and its doors without one."""
