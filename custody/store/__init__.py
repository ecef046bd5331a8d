# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store over SQLite or PostgreSQL: `migrate(url)`, `open_store(url, assets)`. Rows never leave this package."""

from custody.store.roles import grant_reader
from custody.store.unit_of_work import SqlStore, migrate, open_store
from custody.store.writing import OutcomeUnknown

__all__ = ["OutcomeUnknown", "SqlStore", "grant_reader", "migrate", "open_store"]
