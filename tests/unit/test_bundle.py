# SPDX-License-Identifier: AGPL-3.0-or-later
"""A bundle: whole or not at all, one hash over everything in it, in force by its owners' signatures only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from custody.rules.errors import InvalidInput
from custody.rules.wallets import Tier
from policies.bundle import FILES, Bundle, from_json, load
from tests.unit.shipped import SHIPPED, open_shipped, write


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def test_the_shipped_bundle_is_whole(bundle: Bundle) -> None:
    """Everything there, in each asset's own base units."""
    assert [asset.symbol for asset in bundle.assets] == ["BTC", "ETH", "USDX", "USDN"]
    assert bundle.fees.maximum_bps == {"BTC": 25, "ETH": 25, "USDX": 10, "USDN": 10}
    assert (bundle.fees.maturity, bundle.fees.daily_cap["ETH"]) == (86_400, 100 * 10**18)
    assert bundle.limits["auto_withdrawal"] == {
        "BTC": 25_000_000,
        "ETH": 5 * 10**18,
        "USDX": 25_000 * 10**6,
        "USDN": 25_000 * 10**6,
    }
    assert [rule.id for rule in bundle.rules] == sorted(rule.id for rule in bundle.rules)
    assert bundle.policy.hash == bundle.hash


def test_every_file_of_the_folder_is_in_the_bundle() -> None:
    """The devnet copies them all; one that is not read would only look like a rule."""
    assert {path.stem for path in SHIPPED.iterdir()} == {*FILES, "cases"}  # cases are examples: nobody signs them


def test_the_hash_survives_the_mirror(bundle: Bundle) -> None:
    """JSON and back, keys in any order: the same 32 bytes, so that what is activated is what is evaluated."""
    again = from_json(json.loads(json.dumps(bundle.to_json(), sort_keys=False)))
    assert again.hash == bundle.hash
    assert len(bundle.hash) == 32


@pytest.mark.parametrize("missing", FILES)
def test_no_part_may_be_missing(bundle: Bundle, missing: str) -> None:
    """A bundle without rules cannot exist, nor one without anything else."""
    with pytest.raises(InvalidInput) as caught:
        from_json({name: node for name, node in bundle.to_json().items() if name != missing})
    assert caught.value.field == "bundle"


def _set(path: str, value: object) -> Callable[[Any], None]:
    """A change to a bundle's documents: `limits.hot_wallet_cap.BTC` to a value; None takes the key out."""

    def change(documents: Any) -> None:
        *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in parents:
            documents = documents[step]
        if value is None:
            del documents[last]
        else:
            documents[last] = value

    return change


HOT: Final = "floors.people.customer_hot"
BTC_ONLY: Final = {"ETH": "10 ETH", "USDX": "50,000 USDX", "USDN": "50,000 USDN"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(_set("notes", {}), "bundle", id="a document nobody reads"),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", None), "limits.yaml:hot_wallet_cap", id="limit without an asset"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.DOGE", "1 DOGE"), "limits.yaml:hot_wallet_cap.DOGE", id="limit of no asset"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "100"), "limits.yaml:hot_wallet_cap.BTC", id="limit without unit"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "100 ETH"), "limits.yaml:hot_wallet_cap.BTC", id="limit in another unit"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "0.000000001 BTC"), "limits.yaml:hot_wallet_cap.BTC", id="too many places"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "1,00 BTC"),
            "limits.yaml:hot_wallet_cap.BTC",
            id="comma in the wrong place",
        ),
        pytest.param(_set("limits.hot_wallet_cap.BTC", "-1 BTC"), "limits.yaml:hot_wallet_cap.BTC", id="negative"),
        pytest.param(_set("limits.hot_wallet_cap.BTC", "1e3 BTC"), "limits.yaml:hot_wallet_cap.BTC", id="exponent"),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "9" * 71 + " BTC"), "limits.yaml:hot_wallet_cap.BTC", id="beyond 2^256"
        ),
        pytest.param(
            _set("limits.hot_wallet_cap.BTC", "9" * 5000 + " BTC"), "limits.yaml:hot_wallet_cap.BTC", id="5,000 digits"
        ),
        pytest.param(_set("limits.Cap", {}), "limits.yaml:Cap", id="limit with a capital"),
        pytest.param(
            _set("limits.hot_wallet_cap", None), "rules.yaml:rules[19].when.dest_balance_after", id="limit a rule needs"
        ),
        pytest.param(_set("limits", {}), "limits.yaml:", id="no limits"),
        pytest.param(_set("floors.people.customer_cold", None), "floors.yaml:people", id="floors without cold"),
        pytest.param(_set("floors.automatic.per_day", None), "floors.yaml:automatic", id="floors without a day's cap"),
        pytest.param(
            _set("floors.people.customer_cold.0.more_than.BTC", "1 BTC"),
            "floors.yaml:people.customer_cold[0]",
            id="free band in cold",
        ),
        pytest.param(
            _set("floors.people.customer_cold.0.people", "0"),
            "floors.yaml:people.customer_cold[0]",
            id="cold by nobody",
        ),
        pytest.param(
            _set("floors.people.operational.0.more_than.ETH", "1 ETH"),
            "floors.yaml:people.operational[0]",
            id="free band in operational",
        ),
        pytest.param(
            _set(f"{HOT}.1.people", "2"),
            "floors.yaml:people.customer_hot[1].more_than",
            id="more coins, no more people",
        ),
        pytest.param(
            _set(f"{HOT}.1.more_than.BTC", "0.5 BTC"),
            "floors.yaml:people.customer_hot[1].more_than",
            id="band does not rise",
        ),
        pytest.param(
            _set(f"{HOT}.0.more_than.BTC", "1 BTC"),
            "floors.yaml:people.customer_hot",
            id="gap between automatic and people",
        ),
        pytest.param(
            _set(f"{HOT}.0.more_than", BTC_ONLY), "floors.yaml:people.customer_hot[0].more_than", id="floor without BTC"
        ),
        pytest.param(_set("assets.assets.0.decimals", "37"), "assets.yaml:assets[0].decimals", id="too many decimals"),
        pytest.param(
            _set("assets.chains.1.final", "1 confirmations"), "assets.yaml:chains[1].final", id="final too early"
        ),
        pytest.param(_set("fees.fees.0.at_most", "25"), "fees.yaml:fees[0].at_most", id="fee without unit"),
        pytest.param(_set("fees.fees.0", None), "fees.yaml:fees", id="asset without a fee"),
        pytest.param(_set("fees.maturity", "22:00"), "fees.yaml:maturity", id="22:00"),
        pytest.param(_set("rules.rules", []), "rules.yaml:rules", id="no rules"),
        pytest.param(_set("rules.vocabulary", "2"), "rules.yaml:vocabulary", id="another vocabulary"),
        pytest.param(_set("rules.vocabulary", 1), "rules.vocabulary", id="a number from JSON"),
    ],
)
def test_a_part_that_is_wrong(bundle: Bundle, change: Callable[[Any], None], field: str) -> None:
    """Each names the field; none loads."""
    documents = json.loads(json.dumps(bundle.to_json()))
    change(documents)
    with pytest.raises(InvalidInput) as caught:
        from_json(documents)
    assert caught.value.field == field


@pytest.mark.parametrize("document", FILES)
def test_the_hash_is_over_every_document(bundle: Bundle, document: str) -> None:
    """One changed character anywhere is another bundle, which its owners have not signed."""
    changed = Bundle({**bundle.to_json(), document: "x"})
    assert changed.hash != bundle.hash


def test_a_limit_raised_by_one_base_unit_is_another_bundle(bundle: Bundle) -> None:
    """The smallest loosening there is."""
    documents = json.loads(json.dumps(bundle.to_json()))
    documents["limits"]["auto_withdrawal"]["BTC"] = "0.25000001 BTC"
    raised = from_json(documents)
    assert raised.limits["auto_withdrawal"]["BTC"] == bundle.limits["auto_withdrawal"]["BTC"] + 1
    assert raised.hash != bundle.hash


def test_a_wrong_file_is_told_with_its_line(tmp_path: Path) -> None:
    """Path and line, for whoever has the file open."""
    limits = (SHIPPED / "limits.yaml").read_text(encoding="ascii").replace("BTC: 0.25 BTC", "BTC: 0.25 ETH")
    with pytest.raises(InvalidInput) as caught:
        load(write(tmp_path, limits=limits))
    assert caught.value.field == "limits.yaml:3: auto_withdrawal.BTC"


@pytest.mark.parametrize(
    ("tier", "units", "people"),
    [
        pytest.param(Tier.CUSTOMER_HOT, 50_000_000, 0, id="hot, at the automatic most"),
        pytest.param(Tier.CUSTOMER_HOT, 50_000_001, 2, id="hot, a satoshi more"),
        pytest.param(Tier.CUSTOMER_HOT, 300_000_000, 2, id="hot, at the second band"),
        pytest.param(Tier.CUSTOMER_HOT, 300_000_001, 3, id="hot, beyond the second band"),
        pytest.param(Tier.CUSTOMER_HOT, 2**256 - 1, 4, id="hot, everything there can be"),
        pytest.param(Tier.CUSTOMER_COLD, 1, 3, id="cold, one satoshi"),
        pytest.param(Tier.CUSTOMER_COLD, 2_500_000_001, 4, id="cold, beyond its band"),
        pytest.param(Tier.OPERATIONAL, 1, 2, id="operational, one satoshi"),
    ],
)
def test_floors_by_native_amount(bundle: Bundle, tier: Tier, units: int, people: int) -> None:
    """What a seat asks for whatever the statement says."""
    assert bundle.floors.people_for(tier, "BTC", units) == people


def test_an_asset_without_floors_is_unknown(bundle: Bundle) -> None:
    """Never zero people."""
    with pytest.raises(InvalidInput):
        bundle.floors.people_for(Tier.CUSTOMER_HOT, "DOGE", 1)


# In force
