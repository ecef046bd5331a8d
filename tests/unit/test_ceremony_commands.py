# SPDX-License-Identifier: AGPL-3.0-or-later
"""Commands around cold seats: what is carried to them anew, and what the attestor has seen of them when a wallet is born."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from custody import birthing, bootstrap, parts, working
from custody.commands.payout import app as payout_app
from custody.commands.wallet import app as wallet_app
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.transfers import Transfer
from custody.rules.wallets import Tier
from tests.fakes.payouts import Workshop
from tests.fakes.seat import BITCOIN, COLD, rules_of
from tests.fakes.trust import world


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop behind the commands, and a withdrawal that two seats are missing for."""
    shop = Workshop()
    for seat in shop.seats[:2]:
        seat.silent = True
    opened = SimpleNamespace(store=shop.treasury.store, settings=None)
    monkeypatch.setattr(bootstrap, "open_deployment", lambda *_, **__: opened)
    monkeypatch.setattr(working, "KernelReader", lambda _: lambda: shop.treasury.kernel)
    for module in (parts, birthing):
        monkeypatch.setattr(module, "attestor", lambda _: shop.attestor)
    return shop


def export(transfer: Transfer, target: Path, *more: str) -> Request:
    """What the file has after `payout export`."""
    told = CliRunner().invoke(payout_app, ["export", transfer.intent.id, str(target), *more, "--home", "x"])
    if told.exception is not None:
        raise told.exception
    return Request.from_json(json.loads(target.read_text()))


def test_export_asks_anew_only_where_told(shop: Workshop, tmp_path: Path) -> None:
    """Twice the same file; with --fresh the same payout under a new number, which is what a later export gives too."""
    transfer = shop.queued()
    shop.step()
    first = export(transfer, tmp_path / "1")
    assert export(transfer, tmp_path / "2") == first
    fresh = export(transfer, tmp_path / "3", "--fresh")
    assert fresh.statement.message.sequence > first.statement.message.sequence
    assert (fresh.payload, fresh.transfers) == (first.payload, first.transfers)
    assert export(transfer, tmp_path / "4") == fresh


def test_export_of_what_the_attestor_refuses(shop: Workshop, tmp_path: Path) -> None:
    """Its reason is said, no file is written, and the request of before stands."""
    transfer = shop.queued()
    shop.step()
    first = export(transfer, tmp_path / "1")
    shop.attestor.against = (Refusal(Rule.COVERAGE, asset="ETH", surplus=-1),)
    with pytest.raises(Refused) as caught:
        export(transfer, tmp_path / "2", "--fresh")
    assert rules_of(caught.value) == {Rule.COVERAGE}
    assert not (tmp_path / "2").exists()
    assert export(transfer, tmp_path / "3") == first


def silent() -> frozenset[str]:
    """The attestor's process is not there."""
    raise Unavailable("attestor", "no answer")


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        pytest.param(lambda: frozenset(COLD), "", id="all are seen"),
        pytest.param(
            lambda: frozenset(COLD[1:]), f"has not seen {COLD[0]}: bulkhead statement make", id="one was silent"
        ),
        pytest.param(silent, f"no answer\nthe attestor has not seen {COLD[0]}, {COLD[1]}", id="no attestor"),
    ],
)  # fmt: skip
def test_a_wallet_is_born_with_its_heads_shown(
    heads: Callable[[], frozenset[str]], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is born whoever is silent; whom the attestor has not seen is said, since that seat signs nothing before it has."""
    signed: Any = world().certificates[Tier.CUSTOMER_COLD.value, BITCOIN.name]
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(signed.to_json()))
    monkeypatch.setattr(bootstrap, "open_deployment", lambda *_, **__: None)
    monkeypatch.setattr(birthing, "create_wallet", lambda _, given: given.message.label)
    monkeypatch.setattr(birthing, "show_heads", lambda _: heads())
    told = CliRunner().invoke(wallet_app, ["create", str(file), "--home", "x"])
    assert told.exit_code == 0, told.output
    assert "accepted by 4 seats" in told.output
    assert ("has not seen" in told.output) == bool(said)
    assert said in told.output


def test_which_heads_a_statement_has(shop: Workshop) -> None:
    """Those of the seats that answered the attestor."""
    deployment: Any = SimpleNamespace(settings=None)
    assert birthing.show_heads(deployment) == {seat.name for seat in shop.seats}
