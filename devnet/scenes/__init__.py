# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demonstration's scenes: each takes the world and the story, does one thing for real, and claims what has to hold."""
