# SPDX-License-Identifier: AGPL-3.0-or-later
"""A certificate's addresses by three codes that share nothing (embit, bitcoinlib, bitcoind), and its watch-only wallet."""

from decimal import Decimal
from itertools import count

import pytest

from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import CHANGE, RECEIVE, change_address, derive_address, receive_address
from custody.chains.bitcoin.second import agree, decode_transaction
from custody.chains.bitcoin.view import watch_only
from custody.chains.bitcoin.watching import branch_descriptor
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refused, Rule
from devnet.bitcoind import MINER, Bitcoind
from tests.fakes.bitcoin import MAIN, REGTEST, bitcoin_certificate

_WALLETS = count()


@pytest.fixture
def rpc(bitcoind: Bitcoind) -> BitcoinRpc:
    """A client of the shared node."""
    return BitcoinRpc(bitcoind.url, REGTEST, cookie=bitcoind.cookie_file)


@pytest.fixture
def certificate() -> WalletCertificate:
    """A wallet of its own for each test."""
    return bitcoin_certificate(name=f"watched-{next(_WALLETS)}")


def test_three_codes_agree(bitcoind: Bitcoind, certificate: WalletCertificate) -> None:
    """Twenty indices of both branches: the same addresses from embit, bitcoinlib and the node."""
    assert agree(certificate, range(20)) is None
    descriptor = certificate.script[0].descriptor
    info = bitcoind.rpc("getdescriptorinfo", descriptor)
    assert isinstance(info, dict)
    assert info["checksum"] == descriptor.partition("#")[2]
    by_node = bitcoind.rpc("deriveaddresses", descriptor, [0, 19])
    assert by_node == [[derive_address(certificate, branch, i).text for i in range(20)] for branch in (RECEIVE, CHANGE)]
    for branch in (RECEIVE, CHANGE):
        alone = bitcoind.rpc("deriveaddresses", branch_descriptor(certificate, branch), [0, 19])
        assert isinstance(by_node, list)
        assert alone == by_node[branch]


def test_second_decoder_reads_what_the_node_made(bitcoind: Bitcoind) -> None:
    """A transaction made and signed by the node's wallet, field by field."""
    to = receive_address(bitcoin_certificate(name="decoded"), 0)
    txid = bitcoind.pay(to.text, 1_234_567_890)
    told = bitcoind.rpc("getrawtransaction", txid, 1)
    assert isinstance(told, dict)
    decoded = decode_transaction(bytes.fromhex(told["hex"]), REGTEST)
    assert (decoded.txid.hex(), decoded.locktime, decoded.version) == (txid, told["locktime"], told["version"])
    assert [(i.txid.hex(), i.vout, i.sequence) for i in decoded.inputs] == [
        (i["txid"], i["vout"], i["sequence"]) for i in told["vin"]
    ]
    assert [(o.value, o.script.hex(), o.address) for o in decoded.outputs] == [
        (int(Decimal(o["value"]).scaleb(8)), o["scriptPubKey"]["hex"], o["scriptPubKey"]["address"])
        for o in told["vout"]
    ]


def test_watch_only(bitcoind: Bitcoind, rpc: BitcoinRpc, certificate: WalletCertificate) -> None:
    """The node watches both branches without a private key; twice is once; a wider window widens; a past coin is found."""
    name = f"bulkhead-{certificate.label}"
    bitcoind.pay(receive_address(certificate, 3).text, 50_000)
    bitcoind.mine()
    watch_only(rpc, name, certificate, window=10)
    watch_only(rpc, name, certificate, window=10)
    for address, used in ((receive_address(certificate, 9), True), (change_address(certificate, 9), True)):
        told = rpc.call("getaddressinfo", address.text, wallet=name)
        assert isinstance(told, dict)
        assert (told["ismine"], told["solvable"], told["iswatchonly"]) == (used, True, False)
    wallet = rpc.call("getwalletinfo", wallet=name)
    assert isinstance(wallet, dict)
    assert wallet["private_keys_enabled"] is False
    assert rpc.call("getbalance", wallet=name) == Decimal("0.0005")

    far = receive_address(certificate, 1_500)
    told = rpc.call("getaddressinfo", far.text, wallet=name)
    assert isinstance(told, dict)
    assert told["ismine"] is False
    watch_only(rpc, name, certificate, window=2_000)
    watch_only(rpc, name, certificate, window=10)  # never narrower
    told = rpc.call("getaddressinfo", far.text, wallet=name)
    assert isinstance(told, dict)
    assert told["ismine"] is True
    found = rpc.call("listdescriptors", wallet=name)
    assert isinstance(found, dict)
    assert isinstance(found["descriptors"], list)
    assert len(found["descriptors"]) == 2


def test_watch_only_after_the_node_restarted_wallet(rpc: BitcoinRpc, certificate: WalletCertificate) -> None:
    """A wallet that the node knows and has not loaded is loaded, not made again."""
    name = f"bulkhead-{certificate.label}"
    watch_only(rpc, name, certificate, window=5)
    rpc.call("unloadwallet", name)
    watch_only(rpc, name, certificate, window=5)
    assert rpc.call("getbalance", wallet=name) == 0


def test_watch_only_refuses(rpc: BitcoinRpc, certificate: WalletCertificate) -> None:
    """A name in use, a wallet with private keys, another network, a script that does not match, an odd name."""
    name = f"bulkhead-{certificate.label}"
    watch_only(rpc, name, certificate, window=5)
    for taken in (name, MINER):
        with pytest.raises(InvalidInput) as caught:
            watch_only(rpc, taken, bitcoin_certificate(name="another"), window=5)
        assert caught.value.rule == Rule.NAME_REUSED
    with pytest.raises(InvalidInput) as caught:
        watch_only(rpc, "elsewhere", bitcoin_certificate(chain=MAIN), window=5)
    assert caught.value.rule == Rule.WRONG_NETWORK
    with pytest.raises(InvalidInput) as caught:
        watch_only(rpc, "../outside", certificate, window=5)
    assert caught.value.rule == Rule.MALFORMED
    with pytest.raises(Refused):
        watch_only(rpc, "mismatch", bitcoin_certificate(descriptor="wsh(pk(02))"), window=5)
