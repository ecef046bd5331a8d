# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is related or sanctioned stands in the bundle: read strictly, grown freely, and shortened only on the path of a weaker bundle."""

from pathlib import Path
from typing import Any, Final

import pytest

from custody.rules.errors import InvalidInput
from custody.rules.parties import Parties
from custody.rules.refusals import Rule
from policies.bundle import Bundle, from_json, load
from policies.matrix import markdown
from policies.proofs.difference import difference
from policies.proofs.documents import Direction
from policies.refinement import not_plainly_stricter
from tests.unit.shipped import open_shipped

ETHER: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
OTHER: Final = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
COIN: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
DESK: Final[dict[str, Any]] = {"entity": "desk", "why": "Ours.", "customers": ["desk"], "addresses": [ETHER, COIN]}
LISTED: Final[dict[str, Any]] = {"entity": "list", "why": "The law.", "addresses": [OTHER]}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def with_parties(bundle: Bundle, related: list[Any], sanctioned: list[Any]) -> Bundle:
    """The same bundle with other lists."""
    return from_json({**bundle.to_json(), "parties": {"related": related, "sanctioned": sanctioned}})


@pytest.mark.parametrize(
    ("account", "destination", "related", "sanctioned"),
    [
        pytest.param("customer:desk", "0x1", True, False, id="an account"),
        pytest.param("customer:ada", ETHER, True, False, id="an address"),
        pytest.param("customer:ada", ETHER.lower(), True, False, id="another spelling of it"),
        pytest.param("customer:ada", COIN, True, False, id="on Bitcoin"),
        pytest.param("customer:ada", OTHER, False, True, id="sanctioned"),
        pytest.param("customer:desk2", COIN[:-1], False, False, id="somebody else"),
        pytest.param("company", "0x1", False, False, id="the company"),
    ],
)
def test_who_is_listed(shipped: Bundle, account: str, destination: str, related: bool, sanctioned: bool) -> None:
    """By account or by address, whichever chain the address is used on."""
    parties = with_parties(shipped, [DESK], [LISTED]).registry.parties
    assert (parties.is_related(account, destination), parties.is_sanctioned(destination)) == (related, sanctioned)


def test_nobody() -> None:
    """Without lists nobody is."""
    assert not Parties().is_related("customer:ada", ETHER)
    assert not Parties().is_sanctioned(ETHER)


@pytest.mark.parametrize(
    ("related", "sanctioned", "field", "rule"),
    [
        pytest.param([{**DESK, "customers": [], "addresses": []}], [], "related[0]", Rule.MALFORMED, id="nothing"),
        pytest.param([DESK, {**DESK, "entity": "b"}], [], "related[1]", Rule.NAME_REUSED, id="the same customer twice"),
        pytest.param([DESK, {**DESK, "customers": ["b"]}], [], "related[1]", Rule.NAME_REUSED, id="an entity twice"),
        pytest.param([{**DESK, "customers": ["customer:desk"]}], [], "customers[0]", Rule.MALFORMED, id="an account"),
        pytest.param([{**DESK, "customers": ["Desk"]}], [], "customers[0]", Rule.MALFORMED, id="no customer's id"),
        pytest.param([{**DESK, "addresses": [ETHER.lower()]}], [], "addresses[0]", Rule.WRONG_CHECKSUM, id="mistyped"),
        pytest.param([{**DESK, "addresses": ["bc1q"]}], [], "addresses[0]", Rule.WRONG_CHECKSUM, id="mistyped bech32"),
        pytest.param([{**DESK, "addresses": ["x"]}], [], "addresses[0]", Rule.WRONG_CHECKSUM, id="no address"),
        pytest.param([{**DESK, "owner": "x"}], [], "owner", Rule.MALFORMED, id="an unknown key"),
        pytest.param("nobody", [], "related", Rule.MALFORMED, id="no list"),
        pytest.param([], [{**LISTED, "customers": ["a"]}], "customers", Rule.MALFORMED, id="a sanctioned customer"),
        pytest.param([], [LISTED, LISTED], "sanctioned[1]", Rule.NAME_REUSED, id="a list twice"),
    ],
)
def test_refused(shipped: Bundle, related: list[Any], sanctioned: list[Any], field: str, rule: Rule) -> None:
    """What would list nobody, or could be read in two ways."""
    with pytest.raises(InvalidInput) as caught:
        with_parties(shipped, related, sanctioned)
    assert caught.value.rule is rule
    assert field in caught.value.field


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(([DESK], []), ([DESK], []), (), id="the same"),
        pytest.param(([], []), ([DESK], [LISTED]), (), id="grown"),
        pytest.param(([DESK], []), ([{**DESK, "entity": "house"}], []), (), id="under another name"),
        pytest.param(([DESK], []), ([], []), ("customer:desk", ETHER.lower(), COIN), id="an entity gone"),
        pytest.param(([DESK], []), ([{**DESK, "addresses": [COIN]}], []), (ETHER.lower(),), id="an address gone"),
        pytest.param(([], [LISTED]), ([], [{**LISTED, "addresses": [ETHER]}]), (OTHER.lower(),), id="another one"),
    ],
)
def test_whoever_leaves_a_list_is_a_loosening(
    shipped: Bundle, old: tuple[Any, Any], new: tuple[Any, Any], told: tuple[str, ...]
) -> None:
    """Seen by seats without a solver, and by the report with who it is."""
    was, now = with_parties(shipped, *old), with_parties(shipped, *new)
    said = not_plainly_stricter(was, now)
    assert len(said) == len(told)
    assert all(any(f" {each} " in line for line in said) for each in told)
    report = difference(was, now)
    weaker = {change.where.rpartition(" ")[2] for change in report.changes if change.direction is Direction.WEAKER}
    assert weaker == set(told)
    assert report.is_weaker is bool(told)


def test_the_shipped_list_names_an_affiliate(shipped: Bundle) -> None:
    """The trading company that FTX never listed is listed from the start, and the generated document says so."""
    assert shipped.registry.parties.is_related("customer:trading-desk", "0x1")
    told = "\n".join(markdown(shipped))
    assert "## Who is related to us\n\n- **trading-desk**" in told
    assert "## Who is sanctioned\n\n- Nobody is listed." in told


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    """No bundle exists without its lists: an empty one has to be written down."""
    open_shipped(tmp_path)
    (tmp_path / "parties.yaml").unlink()
    with pytest.raises(InvalidInput, match=r"parties\.yaml"):
        load(tmp_path)
