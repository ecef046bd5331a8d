# SPDX-License-Identifier: AGPL-3.0-or-later
"""Key-holders: seats, the attestor and the relayer, each over its own OpenBao; the one room that speaks hvac."""
