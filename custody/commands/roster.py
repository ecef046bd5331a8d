# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead roster …`."""

from custody.commands.init import roster_app as app

__all__ = ["app"]
