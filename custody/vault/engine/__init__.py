# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat inside OpenBao: a secrets-engine plugin that hosts `custody.vault.seat` over the plugin's own storage."""

from typing import Final

VERSION: Final = "v0.1.0"
"""What OpenBao's catalog lists; the sha256 beside it says which build it is."""
