# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor must not forget, in its own OpenBao with its own role: a new process has it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from custody.rules.statements import SeatPosition
from custody.vault.attestor_memory import VaultMemory
from custody.vault.openbao import OpenBaoClient
from devnet.grants import Kind
from devnet.openbao import OpenBao

COLD, HOT = SeatPosition("cold-1", 5, b"\x01" * 32), SeatPosition("hot-1", 2, b"\x02" * 32)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenBao]:
    """An OpenBao of an attestor."""
    made = OpenBao("attestor", tmp_path / "attestor")
    try:
        made.open(Kind.ATTESTOR)
        yield made
    finally:
        made.stop()


def test_seat_heads_outlive_the_process_and_the_server(server: OpenBao) -> None:
    """Told again after both restarted, never lowered."""

    def memory() -> VaultMemory:
        return VaultMemory(OpenBaoClient.from_file(server.approle_file))

    assert memory().see_heads([]) == []
    assert memory().see_heads([HOT]) == [HOT]
    assert memory().see_heads([COLD, replace(HOT, position=1)]) == [COLD, HOT]
    server.stop()
    server.start()
    server.unseal()
    assert memory().see_heads([replace(COLD, position=4)]) == [COLD, HOT]
