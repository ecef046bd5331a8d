# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run by alembic: migrates over the connection it was handed, inside the caller's transaction."""

from alembic import context

from custody.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
