# SPDX-License-Identifier: AGPL-3.0-or-later
"""A COMMIT that the database refuses: nothing of the work stands, whoever asked is told, and the same store writes again."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy.pool import PoolProxiedConnection

from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.store import open_store
from tests.contract.conftest import ENGINES
from tests.fakes import ledger


def _append(height: int, work: UnitOfWork) -> None:
    """By way of SQLAlchemy, which joins the transaction that the writer began, and of the driver."""
    work.documents.put("watched", str(height), {})
    work.journal.append(ledger.credit(ledger.native(height)), ledger.NOW)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_commit_that_fails(engine: str, make_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full says so at COMMIT: a worker that met it once would otherwise never write again until it is restarted."""
    store = open_store(make_url(engine), ledger.ASSETS)
    store.run(partial(_append, 1))
    dialect = store._writer._engine.dialect  # type: ignore[union-attr]
    error, commit, left = dialect.loaded_dbapi.OperationalError, dialect.do_commit, [1]

    def full(connection: PoolProxiedConnection) -> None:
        if left:
            left.pop()
            if engine == "postgresql":
                raise dialect.loaded_dbapi.errors.DiskFull("No space left on device")
            raise error("database or disk is full")
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", full)
    with pytest.raises(Unavailable, match=r"full|space"):
        store.run(partial(_append, 2))
    store.run(partial(_append, 3))
    entries = store.read(lambda work: work.journal.read())
    assert [entry.entry.origin.height for entry in entries] == [1, 3]  # type: ignore[union-attr]
    store.close()
