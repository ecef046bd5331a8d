# SPDX-License-Identifier: AGPL-3.0-or-later
"""Change never leaves the window that watchers and seats go by, however many payouts there were: on a node in memory."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any, cast

import pytest
from embit.psbt import PSBT  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import Transaction, TransactionInput, TransactionOutput  # type: ignore[import-untyped]

from custody.chains.bitcoin.decode import decode
from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import CHANGE, RECEIVE, change_address, receive_address, script_pubkey
from custody.chains.bitcoin.watching import branch_descriptor
from custody.flows.inventory import Inventory
from custody.rules.certificates import WalletCertificate
from custody.rules.payments import Payment
from custody.rules.payouts import CHANGE_WINDOW, VOID_CHANGE, DecodedPayload, LeafKind, PsbtPayload, Surroundings
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.house import DERIVE, certificate, certificates
from tests.fakes.ledger import ASSETS, BTC
from tests.fakes.seat import rules_of
from tests.fakes.trust import PAYEE

HOT = certificate(Tier.CUSTOMER_HOT, BTC)
TO = Address(BTC, PAYEE[BTC.name])
UNITS = 10**6
CONFIRMED = 6


@dataclass
class NodeInMemory:
    """What `BitcoinPayouts` asks of a bitcoind: coins of one wallet, all of them confirmed, and how far change was used."""

    certificate: WalletCertificate
    chain: Chain = BTC
    coins: dict[str, tuple[Transaction, int, int, int]] = field(default_factory=dict)
    next_change: int = 0
    _salt: Iterator[int] = field(default_factory=lambda: count(1))

    def deposit(self, units: int, branch: int = RECEIVE, index: int = 0) -> str:
        """A coin out of nowhere; its outpoint."""
        derive = change_address if branch == CHANGE else receive_address
        script = Script(script_pubkey(derive(self.certificate, index)))
        vin = [TransactionInput(next(self._salt).to_bytes(32), 0)]
        return self._put(Transaction(2, vin, [TransactionOutput(units, script)], 0), 0, branch, index)

    def mine(self, psbt: bytes, change: int) -> None:
        """The transaction of a PSBT is in a block: its coins are gone, its change at an index is there."""
        tx = PSBT.parse(psbt).tx
        for spent in tx.vin:
            del self.coins[f"{spent.txid.hex()}:{spent.vout}"]
        script = script_pubkey(change_address(self.certificate, change))
        self._put(tx, next(i for i, out in enumerate(tx.vout) if out.script_pubkey.data == script), CHANGE, change)
        self.next_change = max(self.next_change, change + 1)

    def call(self, method: str, *params: Any, wallet: str = "") -> Any:
        """The RPC."""
        return getattr(self, f"_{method}")(*params)

    def _put(self, tx: Transaction, vout: int, branch: int, index: int) -> str:
        outpoint = f"{tx.txid().hex()}:{vout}"
        self.coins[outpoint] = tx, vout, branch, index
        return outpoint

    def _loadwallet(self, _: str) -> dict[str, Any]:
        return {}

    def _getwalletinfo(self) -> dict[str, Any]:
        return {"private_keys_enabled": False}

    def _listdescriptors(self) -> dict[str, Any]:
        each = {"range": [0, 999], "next_index": self.next_change}
        return {
            "descriptors": [{"desc": branch_descriptor(self.certificate, b), **each} for b in (RECEIVE, CHANGE)],
        }

    def _listunspent(self, *_: object) -> list[dict[str, Any]]:
        return [
            {
                "txid": tx.txid().hex(),
                "vout": vout,
                "amount": Decimal(tx.vout[vout].value).scaleb(-8),
                "scriptPubKey": tx.vout[vout].script_pubkey.data.hex(),
                "desc": f"wsh(x[00000000/{branch}/{index}])",
            }
            for tx, vout, branch, index in self.coins.values()
        ]

    def _gettxout(self, txid: str, vout: int, mempool: bool) -> dict[str, Any] | None:
        assert not mempool
        known = self.coins.get(f"{txid}:{vout}")
        if known is None:
            return None
        _, _, branch, index = known
        address = (change_address if branch == CHANGE else receive_address)(self.certificate, index).text
        return {"confirmations": CONFIRMED, "scriptPubKey": {"address": address}}

    def _gettransaction(self, txid: str) -> dict[str, Any]:
        tx = next(tx for tx, *_ in self.coins.values() if tx.txid().hex() == txid)
        return {"hex": tx.serialize().hex()}

    def _getaddressinfo(self, address: str) -> dict[str, Any]:
        for _, _, branch, index in self.coins.values():
            if (change_address if branch == CHANGE else receive_address)(self.certificate, index).text == address:
                return {"desc": f"wsh(x[00000000/{branch}/{index}])"}
        raise AssertionError(address)

    def _getmempoolinfo(self) -> dict[str, Any]:
        return {"mempoolminfee": Decimal("0.00001")}

    def _estimatesmartfee(self, _: int) -> dict[str, Any]:
        return {"feerate": Decimal("0.00002")}


def payment(number: int) -> Payment:
    """0.01 BTC to somebody."""
    return Payment(number.to_bytes(32), "BTC", UNITS, TO, 50_000)


def every(outpoints: Collection[str]) -> Collection[str]:
    """A ledger that has credited everything."""
    return outpoints


def payouts_of(node: NodeInMemory) -> BitcoinPayouts:
    """The real builder on it."""
    return BitcoinPayouts(cast("BitcoinRpc", node), ASSETS)


def read(psbt: object) -> DecodedPayload:
    """What a seat reads."""
    assert isinstance(psbt, PsbtPayload)
    found = decode(psbt, Surroundings(HOT.wallet, HOT, ASSETS))
    assert isinstance(found, DecodedPayload), [str(refusal) for refusal in found]
    return found


def test_forty_payouts_stay_within_the_window() -> None:
    """One coin pays forty times out of its own change: every seat reads change, and every change address is watched."""
    node = NodeInMemory(HOT)
    node.deposit(10**8)
    payouts, watched = payouts_of(node), Inventory(certificates(), [], DERIVE)
    used: list[int] = []
    for number in range(40):
        reservation = payouts.next_anchor(HOT.wallet, HOT, [payment(number)], (), every)
        unsigned = payouts.build(HOT, reservation, [payment(number)])
        (change,) = (leaf for leaf in read(unsigned.payload).leaves if leaf.kind is LeafKind.CHANGE)
        wallet = watched.wallet_of(Address(BTC, change.destination))
        assert wallet is not None
        assert wallet.name == HOT.wallet
        assert payouts.build(HOT, reservation, [payment(number)]) == unsigned  # after a crash: the same bytes
        assert isinstance(unsigned.payload, PsbtPayload)
        node.mine(unsigned.payload.psbt, reservation.change)
        used.append(reservation.change)
    assert used[:CHANGE_WINDOW] == list(range(CHANGE_WINDOW))
    assert set(used[CHANGE_WINDOW:]) <= set(range(CHANGE_WINDOW))
    assert len(set(used[CHANGE_WINDOW:])) > CHANGE_WINDOW // 3  # spread, not one address for ever


@pytest.mark.parametrize("index", [CHANGE_WINDOW, 25, 999])
def test_a_coin_that_nobody_watches_is_not_spent(index: int) -> None:
    """Whoever knows the descriptor can pay a change index that no inventory has; a payout of it could never be booked."""
    node = NodeInMemory(HOT)
    node.deposit(10**9, CHANGE, index)
    with pytest.raises(Refused) as caught:
        payouts_of(node).next_anchor(HOT.wallet, HOT, [payment(1)], (), every)
    assert rules_of(caught.value) == {Rule.INSUFFICIENT_BALANCE}
    ours = node.deposit(10**8)
    assert payouts_of(node).next_anchor(HOT.wallet, HOT, [payment(1)], (), every).references == (ours,)


@pytest.mark.parametrize(
    ("branch", "index"),
    [
        pytest.param(RECEIVE, 0, id="a customer's"),
        pytest.param(CHANGE, VOID_CHANGE, id="the change address for voids itself"),
        pytest.param(CHANGE, 7, id="another change address"),
    ],
)
def test_a_void_pays_one_change_address(branch: int, index: int) -> None:
    """Wherever the anchor lies, its void is read as that by a seat, and pays nobody's address."""
    node = NodeInMemory(HOT)
    node.deposit(10**8, branch, index)
    payouts = payouts_of(node)
    anchor = payouts.next_anchor(HOT.wallet, HOT, [payment(1)], (), every).anchor
    found = read(payouts.void(HOT, anchor, outbid=900).payload)
    assert found.is_void
    assert found.leaves[0].destination == change_address(HOT, VOID_CHANGE).text
    assert found.anchor == anchor
