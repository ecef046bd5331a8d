# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real processes killed with SIGKILL at named failpoints, against a twin that never crashed. Nothing of it is in production code."""
