# SPDX-License-Identifier: AGPL-3.0-or-later
"""Forms that are hashed and kept for ever: a byte that differs breaks every journal, and every answer that a seat remembers."""

from hashlib import sha256

import pytest

from custody.rules.amounts import Amount
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.ledger import Account, AccountKind, Entry, Posting, Side, canonical, credit_deposit, entry_hash
from custody.rules.origins import BitcoinProof
from custody.rules.refusals import Rule
from tests.fakes.ledger import BTC, COIN, ETH, HOT, available


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"b": 1, "a": {"d": None, "c": True}}, '{"a":{"c":true,"d":null},"b":1}', id="sorted, no spaces"),
        pytest.param(["é", "\N{SNOWMAN}"], '["\\u00e9","\\u2603"]', id="ASCII alone"),
        pytest.param([2**255, "10"], f'[{2**255},"10"]', id="integers whole"),
    ],
)
def test_canonical_bytes(value: object, text: str) -> None:
    """One value has one form, to the byte, whatever the order it was put together in."""
    assert canonical(value) == text.encode("ascii")


@pytest.mark.parametrize("number", [float("nan"), float("inf")], ids=["NaN", "infinity"])
def test_what_is_no_number_has_no_form(number: float) -> None:
    """JSON does not know it, and another reader would read another thing."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"units": number})


def test_the_hash_of_an_entry() -> None:
    """Written out by hand: the prefix, then the entry with its place, its time and the hash before it, in canonical form."""
    proof = BitcoinProof(BTC.name, 7, b"\1" * 32, b"\2" * 32, 3, "bcrt1qaddress", 600)
    entry = credit_deposit(proof, HOT, available("ana"), Amount(COIN, 600))
    text = (
        '{"origin":{"message":{"address":"bcrt1qaddress","block":"0x' + "01" * 32 + f'","chain":"{BTC.name}",'
        '"height":"7","txid":"0x' + "02" * 32 + '","value":"600","vout":"3"},"type":"BitcoinProof"},"position":5,'
        f'"postings":[{{"account":"wallet:{"ab" * 32}","asset":"BTC","side":"debit","units":"600"}},'
        '{"account":"customer_available:ana","asset":"BTC","side":"credit","units":"600"}],'
        '"previous":"' + "09" * 32 + '","recorded_at":1800000000}'
    )
    want = sha256(b"bulkhead journal v1\x00" + text.encode("ascii")).digest()
    assert entry_hash(5, 1_800_000_000, b"\x09" * 32, entry) == want


@pytest.mark.parametrize(
    ("kind", "owner"),
    [
        pytest.param(AccountKind.WALLET, "", id="a wallet of no name"),
        pytest.param(AccountKind.CUSTOMER_HELD, "", id="nobody's balance"),
        pytest.param(AccountKind.ACCRUED_FEES, "ada", id="somebody's fees"),
    ],
)
def test_an_account_that_cannot_be(kind: AccountKind, owner: str) -> None:
    """Refused by its rule."""
    with pytest.raises(InvalidInput) as caught:
        Account(kind, owner)
    assert caught.value.rule is Rule.MALFORMED


def test_an_entry_of_nothing() -> None:
    """No postings are no entry, and one side alone is none either."""
    proof = BitcoinProof(BTC.name, 7, b"\1" * 32, b"\2" * 32, 3, "bcrt1qaddress", 600)
    with pytest.raises(InvalidInput) as caught:
        Entry(proof, ())
    assert caught.value.rule is Rule.MALFORMED
    with pytest.raises(UnbalancedEntry):
        Entry(proof, (Posting(HOT, Side.DEBIT, Amount(ETH, 1)),))
