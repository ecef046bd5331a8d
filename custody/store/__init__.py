# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store over SQLite or PostgreSQL: `migrate(url)`, `open_store(url, assets)`. Rows never leave this package."""

from custody.store.group_commit import GroupCommit
from custody.store.roles import grant_reader
from custody.store.unit_of_work import SqlStore, migrate, open_store

__all__ = ["GroupCommit", "SqlStore", "grant_reader", "migrate", "open_store"]
