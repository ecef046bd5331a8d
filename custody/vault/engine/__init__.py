# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat inside OpenBao: a secrets-engine plugin that hosts `custody.vault.seat` over the plugin's own storage."""
