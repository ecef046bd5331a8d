# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts out of P2WSH wallets on regtest: built, decoded by the seats' own decoder, signed by keys in vaults, mined."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count

import pytest

from custody.chains.bitcoin import second
from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import change_address, receive_address
from custody.chains.payouts import open_payouts
from custody.rules.errors import InvalidInput
from custody.rules.payments import (
    Derived,
    Envelope,
    Mined,
    Payment,
    Pending,
    Replaced,
    Reservation,
    SeatSignatures,
    Sweep,
    Unknown,
    UnsignedPayout,
)
from custody.rules.payouts import LeafKind
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Address, Chain
from devnet.bitcoind import MINER, Bitcoind
from devnet.measuring import bitcoin_batches
from devnet.throwaway import QUORUM, SEATS, SeatedWallet, seated_script
from tests.fakes.bitcoin import ASSETS, BTC, CONFIRMATIONS, REGTEST

_WALLETS = count()
Spent = Mapping[tuple[bytes, int], second.SpentOutput]
BITCOIN = 10**8
ENOUGH = 50_000
"""Satoshi of fee that an intent allows in these tests."""


def every(outpoints: Collection[str]) -> Collection[str]:
    """A ledger that has credited everything."""
    return outpoints


@dataclass(frozen=True)
class World:
    """A node, a wallet of its own for each test, and the chain's payouts."""

    node: Bitcoind
    wallet: SeatedWallet
    payouts: BitcoinPayouts

    def fund(self, *amounts: int) -> None:
        """Coins at receive addresses, final."""
        outputs = [
            {receive_address(self.wallet.certificate, i).text: Decimal(units).scaleb(-8)}
            for i, units in enumerate(amounts)
        ]
        self.node.rpc("send", outputs, None, "unset", None, {"fee_rate": 2, "locktime": 0}, wallet=MINER)
        self.node.mine(CONFIRMATIONS)

    def build(self, payments: Sequence[Payment], taken: Sequence[str] = ()) -> UnsignedPayout:
        """Reserve coins and build."""
        certificate = self.wallet.certificate
        reservation = self.payouts.next_anchor(self.wallet.name, certificate, payments, taken, every)
        return self.payouts.build(certificate, reservation, payments)

    def envelope(self, unsigned: UnsignedPayout, seats: Sequence[str] = QUORUM) -> Envelope:
        """Signed by these seats and put together."""
        signed = self.payouts.combine(self.wallet.certificate, unsigned, self.wallet.sign(unsigned, seats))
        return self.payouts.seal(self.wallet.signed, signed)

    def send(self, unsigned: UnsignedPayout) -> Mined:
        """All the way into a block."""
        envelope = self.envelope(unsigned)
        self.payouts.broadcast(envelope)
        assert self.follow(envelope) == Pending(unsigned.id)
        self.node.mine(1)
        mined = self.follow(envelope)
        assert isinstance(mined, Mined)
        return mined

    def follow(self, *envelopes: Envelope) -> object:
        """What became of them."""
        return self.payouts.follow(self.wallet.certificate, envelopes)

    def address(self) -> str:
        """An address of the miner's, unused."""
        return str(self.node.rpc("getnewaddress", wallet=MINER))

    def received(self, address: str) -> int:
        """Satoshi that the miner's wallet received there, in a block."""
        return int(Decimal(str(self.node.rpc("getreceivedbyaddress", address, 1, wallet=MINER))).scaleb(8))

    def pay(self, units: int, to: str | None = None, intent: int = 1, most: int = ENOUGH) -> Payment:
        """One payment, of an intent by its number."""
        return Payment(intent.to_bytes(32), "BTC", units, Address(REGTEST, to or self.address()), most)


@pytest.fixture
def world(bitcoind: Bitcoind) -> World:
    """A wallet that nobody has paid yet."""
    wallet = seated_script(f"payouts-{next(_WALLETS)}", ASSETS, REGTEST, birth=bitcoind.height)
    rpc = BitcoinRpc(bitcoind.url, REGTEST, cookie=bitcoind.cookie_file)
    return World(bitcoind, wallet, BitcoinPayouts(rpc, ASSETS))


def rules(caught: pytest.ExceptionInfo[Refused]) -> list[Rule]:
    """The rules that refused, in order."""
    return [refusal.rule for refusal in caught.value.refusals]


def test_one_payment(world: World) -> None:
    """One coin, one payment, change: what the decoder reads is what was built, bitcoinlib agrees, the miner is paid."""
    world.fund(BITCOIN)
    to = world.address()
    unsigned = world.build([world.pay(30_000_000, to)])
    decoded = world.wallet.decode(unsigned)
    assert (decoded.anchor, decoded.fee) == (unsigned.anchor, unsigned.fee)
    change = change_address(world.wallet.certificate, 0).text
    assert {(leaf.kind, leaf.units, leaf.destination) for leaf in decoded.leaves} == {
        (LeafKind.NATIVE, 30_000_000, to),
        (LeafKind.CHANGE, 70_000_000 - unsigned.fee, change),
    }
    assert [(paid.units, paid.fee) for paid in unsigned.paid] == [(30_000_000, unsigned.fee)]
    mined = world.send(unsigned)
    assert (mined.id, mined.fee) == (unsigned.id, unsigned.fee)
    assert unsigned.size - 3 <= mined.size <= unsigned.size
    assert world.received(to) == 30_000_000


def test_several_coins_and_payments(world: World) -> None:
    """Three payments out of two coins: fee shares add up to the fee, each within its maximum; two reservations share nothing."""
    world.fund(20_000_000, 10_000_000, 5_000_000)
    to = [world.address() for _ in range(3)]
    payments = [world.pay(9_000_000, to[i], i, most=(500, ENOUGH, ENOUGH)[i]) for i in range(3)]
    certificate = world.wallet.certificate
    first = world.payouts.next_anchor(world.wallet.name, certificate, payments, (), every)
    unsigned = world.payouts.build(certificate, first, payments)
    assert len(first.references) == 2
    assert sum(paid.fee for paid in unsigned.paid) == unsigned.fee
    assert unsigned.paid[0].fee == min(500, unsigned.paid[1].fee)
    other = world.payouts.next_anchor(world.wallet.name, certificate, [world.pay(1_000_000)], first.references, every)
    assert set(other.references).isdisjoint(first.references)
    with pytest.raises(Refused) as caught:
        world.payouts.next_anchor(
            world.wallet.name, certificate, [world.pay(1_000_000)], [*first.references, *other.references], every
        )
    assert rules(caught) == [Rule.INSUFFICIENT_BALANCE]
    assert world.payouts.build(certificate, first, payments) == unsigned
    assert type(unsigned).from_json(unsigned.to_json()) == unsigned
    world.send(unsigned)
    assert [world.received(address) for address in to] == [9_000_000] * 3


def test_a_wallet_of_ours_is_recognised(world: World) -> None:
    """A refill: the output carries the other certificate's key paths, so that a seat sees an internal wallet."""
    world.fund(BITCOIN)
    hot = seated_script(f"payouts-{next(_WALLETS)}", ASSETS, REGTEST)
    wallet = replace(world.wallet, others=(hot.certificate,))
    to = receive_address(hot.certificate, 3)
    payment = Payment(bytes(32), "BTC", 5_000_000, to, ENOUGH, Derived(hot.certificate, 0, 3))
    unsigned = world.build([payment])
    (leaf,) = wallet.decode(unsigned).payments
    assert leaf.place is not None
    assert (leaf.place.certificate, leaf.place.index, leaf.destination) == (hot.certificate.struct_hash, 3, to.text)
    signed = world.payouts.combine(wallet.certificate, unsigned, wallet.sign(unsigned))
    world.payouts.broadcast(world.payouts.seal(wallet.signed, signed))


def test_a_hundred_payments(world: World) -> None:
    """One transaction, a hundred addresses, each paid; how many virtual bytes that takes for each."""
    world.fund(*[BITCOIN] * 3)
    to = [world.address() for _ in range(100)]
    unsigned = world.build([world.pay(1_000_000 + i, address, i) for i, address in enumerate(to)])
    mined = world.send(unsigned)
    assert [world.received(address) for address in to] == [1_000_000 + i for i in range(100)]
    assert mined.size / 100 < 40


def test_what_cannot_be_paid(world: World) -> None:
    """Too little, unconfirmed coins, dust, a fee above the intent's maximum, a fee above its share of the payment."""
    certificate, address = world.wallet.certificate, receive_address(world.wallet.certificate, 0).text
    world.node.pay(address, BITCOIN)
    for payment, blocks, rule in (
        (world.pay(1_000_000), 0, Rule.INSUFFICIENT_BALANCE),
        (world.pay(1_000_000), CONFIRMATIONS - 1, Rule.INSUFFICIENT_BALANCE),
        (world.pay(BITCOIN), 1, Rule.INSUFFICIENT_BALANCE),
        (world.pay(1_000_000, most=100), 0, Rule.MAXIMUM_FEE),
        (world.pay(4_000), 0, Rule.FEE_TOO_HIGH),
    ):
        if blocks:
            world.node.mine(blocks)
        with pytest.raises(Refused) as caught:
            world.payouts.next_anchor(world.wallet.name, certificate, [payment], (), every)
        assert rules(caught) == [rule]
    with pytest.raises(InvalidInput) as invalid:
        world.build([world.pay(545)])
    assert invalid.value.rule == Rule.DUST
    unsigned = world.build([world.pay(1_000_000)])
    assert unsigned.fee >= unsigned.size


def test_a_reserved_coin_that_is_gone(world: World) -> None:
    """Spent by another payout meanwhile: refused by name, and nothing is built."""
    world.fund(BITCOIN)
    certificate, payments = world.wallet.certificate, [world.pay(1_000_000)]
    reservation = world.payouts.next_anchor(world.wallet.name, certificate, payments, (), every)
    world.send(world.build(payments))
    with pytest.raises(Refused) as caught:
        world.payouts.build(certificate, reservation, payments)
    assert rules(caught) == [Rule.COIN_GONE]


def tampered(given: list[SeatSignatures], how: str, others: list[SeatSignatures]) -> list[SeatSignatures]:
    """Signatures with one thing wrong."""
    flipped = replace(given[2], signatures=tuple(s[:-2] + bytes([s[-2] ^ 1]) + s[-1:] for s in given[2].signatures))
    return {
        "too few": given[:2],
        "one seat twice": [given[0], given[1], given[1]],
        "stranger": [*given[:2], replace(given[2], seat="mallory")],
        "another seat's": [*given[:2], replace(given[3], seat=given[2].seat)],
        "wrong order of inputs": [*given[:2], replace(given[2], signatures=given[2].signatures[::-1])],
        "one input short": [*given[:2], replace(given[2], signatures=given[2].signatures[:1])],
        "sighash none": [
            *given[:2],
            replace(given[2], signatures=tuple(s[:-1] + b"\x02" for s in given[2].signatures)),
        ],
        "bit flipped": [*given[:2], flipped],
        "another payload's": [*given[:2], others[2]],
        "another certificate's": [*given[:2], replace(given[2], certificate=bytes(32))],
    }[how]


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("too few", None),
        ("one seat twice", Rule.SIGNER_TWICE),
        ("stranger", Rule.SIGNER_UNKNOWN),
        ("another seat's", Rule.SIGNATURE_INVALID),
        ("wrong order of inputs", Rule.SIGNATURE_INVALID),
        ("one input short", Rule.MALFORMED),
        ("sighash none", Rule.SIGHASH),
        ("bit flipped", Rule.SIGNATURE_INVALID),
        ("another payload's", Rule.SIGNATURE_INVALID),
        ("another certificate's", Rule.WRONG_WALLET),
    ],
)
def test_signatures_that_do_not_make_a_transaction(world: World, how: str, rule: Rule | None) -> None:
    """Refused by name when they are put together; the node never sees them."""
    world.fund(6_000_000, 5_000_000)
    unsigned, other = world.build([world.pay(9_000_000)]), world.build([world.pay(9_000_001)])
    given = tampered(world.wallet.sign(unsigned, SEATS), how, world.wallet.sign(other, SEATS))
    with pytest.raises(Refused) as caught:
        world.payouts.combine(world.wallet.certificate, unsigned, given)
    found = rules(caught)
    assert found[-1] is Rule.QUORUM_NOT_REACHED
    assert set(found[:-1]) == ({rule} if rule else set())


def test_any_quorum_in_any_order_signs(world: World) -> None:
    """Seats answer in any order, and one more than needed does no harm: the script's order is restored."""
    world.fund(BITCOIN)
    unsigned = world.build([world.pay(1_000_000)])
    world.payouts.broadcast(world.envelope(unsigned, ("hot-4", "hot-2", "hot-3", "hot-1")))


def test_the_same_bytes_again(world: World) -> None:
    """Waiting, mined, and mined with every output spent: sending again is fine or says to follow; never another payment."""
    world.fund(BITCOIN)
    to = world.address()
    unsigned = world.build([world.pay(50_000_000, to)])
    envelope = world.envelope(unsigned)
    assert Envelope.from_json(envelope.to_json()) == envelope
    assert world.follow(envelope) == Unknown()
    for _ in range(3):
        world.payouts.broadcast(envelope)
    assert world.follow(envelope) == Pending(unsigned.id)
    world.node.mine(1)
    world.payouts.broadcast(envelope)
    assert isinstance(world.follow(envelope), Mined)
    assert world.received(to) == 50_000_000


def test_a_reorg_sends_it_back(world: World) -> None:
    """A block that vanishes takes the payout with it: pending again, not replaced, and the same bytes are mined again."""
    world.fund(BITCOIN)
    unsigned = world.build([world.pay(1_000_000)])
    envelope = world.envelope(unsigned)
    world.payouts.broadcast(envelope)
    (block,) = world.node.mine(1)
    world.node.rpc("invalidateblock", block)
    assert world.follow(envelope) == Pending(unsigned.id)
    world.payouts.broadcast(envelope)
    world.node.mine(1)
    found = world.follow(envelope)
    assert isinstance(found, Mined)
    assert found.block.hex() != block


def test_a_coin_that_a_reorg_took_is_not_consumed(world: World) -> None:
    """The deposit itself leaves the chain: its anchor is not spent by a stranger, and nothing cries wolf."""
    (block,) = world.node.mine(1)
    world.fund(BITCOIN)
    unsigned = world.build([world.pay(1_000_000)])
    envelope = world.envelope(unsigned)
    after = str(world.node.rpc("getblockhash", world.node.height - CONFIRMATIONS + 1))
    world.node.rpc("invalidateblock", after)
    try:
        assert world.follow(envelope) == Unknown()
        with pytest.raises(Refused) as caught:
            world.payouts.build(
                world.wallet.certificate,
                Reservation(unsigned.anchor, (unsigned.anchor.reference,), 0),
                [world.pay(1_000_000)],
            )
        assert rules(caught) == [Rule.COIN_GONE]
    finally:
        world.node.rpc("reconsiderblock", after)
    assert str(world.node.rpc("getblockhash", world.node.height - CONFIRMATIONS)) == block
    world.payouts.broadcast(envelope)


def test_void_takes_the_anchor(world: World) -> None:
    """Two seats signed one thing and two another: the anchor, paid back to change, outbids it, is mined, and the payout is dead."""
    world.fund(BITCOIN, 40_000_000)
    unsigned = world.build([world.pay(120_000_000)])
    stuck = world.envelope(unsigned)
    world.payouts.broadcast(stuck)
    void = world.payouts.void(world.wallet.certificate, unsigned.anchor, outbid=unsigned.fee)
    decoded = world.wallet.decode(void)
    assert decoded.is_void
    assert decoded.anchor == unsigned.anchor
    killing = world.envelope(void)
    world.payouts.broadcast(killing)
    world.node.mine(1)
    mined = world.follow(stuck, killing)
    assert isinstance(mined, Mined)
    assert mined.id == void.id
    assert world.follow(stuck) == Replaced(void.id)
    with pytest.raises(Refused) as caught:
        world.payouts.broadcast(stuck)
    assert rules(caught) == [Rule.ANCHOR_SPENT]
    world.node.mine(CONFIRMATIONS - 1)
    world.send(world.build([world.pay(120_000_000)]))


def test_void_of_an_anchor_that_was_never_sent(world: World) -> None:
    """Nothing was broadcast: the coin goes back to the wallet at the going rate."""
    world.fund(BITCOIN)
    unsigned = world.build([world.pay(1_000_000)])
    void = world.payouts.void(world.wallet.certificate, unsigned.anchor)
    mined = world.send(void)
    assert mined.fee == void.fee
    assert void.fee % void.size == 0  # a whole rate, whatever the node estimates by now


def test_bitcoinlib_has_the_last_word(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second decoder reads another amount, another id, or refuses a signature, nothing leaves."""
    world.fund(BITCOIN)
    unsigned = world.build([world.pay(1_000_000)])
    signatures = world.wallet.sign(unsigned)
    true = second.verify_transaction

    def other_amount(raw: bytes, chain: Chain, spent: Spent) -> second.DecodedTransaction:
        read = true(raw, chain, spent)
        first = replace(read.outputs[0], value=read.outputs[0].value + 1)
        return replace(read, outputs=(first, *read.outputs[1:]))

    def refuses(raw: bytes, chain: Chain, spent: Spent) -> second.DecodedTransaction:
        raise InvalidInput("transaction", Rule.SIGNATURE_INVALID, "deadbeef", "valid signatures on every input")

    for told in (other_amount, refuses):
        monkeypatch.setattr(second, "verify_transaction", told)
        with pytest.raises(Refused) as caught:
            world.payouts.combine(world.wallet.certificate, unsigned, signatures)
        assert set(rules(caught)) == {Rule.SECOND_DECODER}
    monkeypatch.undo()
    for wrong in (replace(unsigned, fee=unsigned.fee + 1), replace(unsigned, id=bytes(32))):
        with pytest.raises(Refused) as caught:
            world.payouts.combine(world.wallet.certificate, wrong, signatures)
        assert rules(caught) == [Rule.SECOND_DECODER]
    paid = replace(unsigned.paid[0], destination=world.address())
    with pytest.raises(Refused) as caught:
        world.payouts.combine(world.wallet.certificate, replace(unsigned, paid=(paid,)), signatures)
    assert [refusal.operands["field"] for refusal in caught.value.refusals] == ["payments"]


def test_preflight_and_bad_input(world: World) -> None:
    """A sound wallet has nothing against it; an altered one has; sweeps, other chains and odd envelopes are refused."""
    certificate = world.wallet.certificate
    assert list(world.payouts.preflight(world.wallet.name, certificate)) == []
    assert [r.rule for r in world.payouts.preflight(b"", replace(certificate, m=2))] == [Rule.SCRIPT_MISMATCH]
    world.fund(BITCOIN)
    payments = [world.pay(1_000_000)]
    reservation = world.payouts.next_anchor(world.wallet.name, certificate, payments, (), every)
    with pytest.raises(InvalidInput):
        world.payouts.build(certificate, reservation, payments, [Sweep(0, "BTC", 1)])
    with pytest.raises(InvalidInput):
        world.payouts.build(certificate, replace(reservation, references=()), payments)
    with pytest.raises(InvalidInput):
        world.build([replace(payments[0], derived=Derived(certificate, 0, 7))])
    envelope = world.envelope(world.build(payments))
    with pytest.raises(InvalidInput):
        world.payouts.broadcast(replace(envelope, transaction=bytes(32)))
    with pytest.raises(InvalidInput):
        world.follow()


def test_opened_by_the_name_of_its_chain(world: World) -> None:
    """One way in for both kinds of chain."""
    opened = open_payouts(REGTEST, world.node.url, str(world.node.cookie_file), ASSETS)
    assert opened.chain == REGTEST
    assert list(opened.preflight(world.wallet.name, world.wallet.certificate)) == []


def test_measured_batches(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Virtual bytes for each payment fall with the size of a batch."""
    rpc = BitcoinRpc(world.node.url, REGTEST, cookie=world.node.cookie_file)
    found = bitcoin_batches(world.node, rpc, BTC, CONFIRMATIONS)
    with capsys.disabled():
        print("\nBTC: " + ", ".join(f"{b.payments}: {b.size} vbytes, {b.each} each" for b in found))
    assert [batch.payments for batch in found] == [1, 10, 100]
    assert found[0].each > found[1].each > found[2].each


def unmined(world: World, unsigned: UnsignedPayout) -> None:
    """Keep it out of blocks, as a low fee would."""
    world.node.rpc("prioritisetransaction", unsigned.id.hex(), 0, -BITCOIN)


def bump(world: World, unsigned: UnsignedPayout, rate: int, most: int, patch: pytest.MonkeyPatch) -> UnsignedPayout:
    """Its variant, where the node asks for so many satoshi per virtual byte and its intent allows so much."""
    patch.setattr("custody.chains.bitcoin.payouts.fee_rate", lambda *_: rate)
    change = world.payouts._wallet(world.wallet.certificate).next_change(19, unsigned.anchor.reference)
    script = {change_address(world.wallet.certificate, i).text: i for i in range(20)}
    (leaf,) = [leaf for leaf in world.wallet.decode(unsigned).leaves if leaf.kind is LeafKind.CHANGE]
    assert script[leaf.destination] <= change
    reservation = Reservation(unsigned.anchor, (unsigned.anchor.reference,), script[leaf.destination])
    maxima = {paid.intent: most for paid in unsigned.paid}
    made = world.payouts.outbid(world.wallet.certificate, reservation, unsigned, maxima)
    assert made is not None
    return made


def test_a_variant_replaces_what_no_block_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stuck in the mempool: seats read the same meaning, the node takes the variant in its place, and that one settles."""
    world.fund(BITCOIN)
    to = world.address()
    stuck = world.build([world.pay(30_000_000, to)])
    sent = world.envelope(stuck)
    world.payouts.broadcast(sent)
    unmined(world, stuck)
    world.node.mine(1)
    assert world.follow(sent) == Pending(stuck.id)
    variant = bump(world, stuck, 20, ENOUGH, monkeypatch)
    was, now = world.wallet.decode(stuck), world.wallet.decode(variant)
    assert (was.meaning, was.anchor, was.inputs) == (now.meaning, now.anchor, now.inputs)
    assert now.fee == variant.fee == 20 * stuck.size == variant.paid[0].fee
    assert type(variant).from_json(variant.to_json()) == variant
    again = world.envelope(variant)
    world.node.rpc("prioritisetransaction", stuck.id.hex(), 0, BITCOIN)  # the node compares what miners were told to
    world.payouts.broadcast(again)
    assert world.follow(sent, again) == Pending(variant.id)
    world.node.mine(1)
    mined = world.follow(sent, again)
    assert isinstance(mined, Mined)
    assert (mined.id, mined.fee) == (variant.id, variant.fee)
    assert world.follow(sent) == Replaced(variant.id)
    assert world.received(to) == 30_000_000


def test_the_first_one_is_mined_after_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block has the first while the variant was sent: it settles with its own fee, and the variant cannot be sent again."""
    world.fund(BITCOIN)
    first = world.build([world.pay(30_000_000)])
    sent, again = world.envelope(first), world.envelope(bump(world, first, 9, ENOUGH, monkeypatch))
    world.payouts.broadcast(sent)
    world.payouts.broadcast(again)
    world.node.rpc("generateblock", world.address(), [sent.raw.hex()])
    mined = world.follow(sent, again)
    assert isinstance(mined, Mined)
    assert (mined.id, mined.fee) == (first.id, first.fee)
    with pytest.raises(Refused) as caught:
        world.payouts.broadcast(again)
    assert rules(caught) == [Rule.ANCHOR_SPENT]


def test_how_far_a_variant_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing where it pays enough; all that people approved where more is asked; refused where that replaces nothing."""
    world.fund(BITCOIN)
    first = world.build([world.pay(30_000_000)])
    with pytest.raises(AssertionError):
        bump(world, first, first.fee // first.size, ENOUGH, monkeypatch)
    assert bump(world, first, 500, ENOUGH, monkeypatch).fee == ENOUGH
    for most, rate, rule in ((first.fee + 1, 500, Rule.MAXIMUM_FEE), (10**9, 500, None)):
        if rule is None:
            assert bump(world, first, rate, most, monkeypatch).fee == rate * first.size
            continue
        with pytest.raises(Refused) as caught:
            bump(world, first, rate, most, monkeypatch)
        assert rules(caught) == [rule]


def test_the_node_replaces_what_does_not_signal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: today's nodes relay full RBF, so a sequence is no protection; ours signals all the same, for older nodes."""
    monkeypatch.setattr("custody.chains.bitcoin.psbts.REPLACEABLE", 0xFFFFFFFF)
    monkeypatch.setattr("custody.chains.bitcoin.payouts.REPLACEABLE", 0xFFFFFFFF)
    world.fund(BITCOIN)
    first = world.build([world.pay(30_000_000)])
    sent = world.envelope(first)
    world.payouts.broadcast(sent)
    entry = world.node.rpc("getmempoolentry", first.id.hex())
    assert isinstance(entry, dict)
    again = world.envelope(bump(world, first, 9, ENOUGH, monkeypatch))
    world.payouts.broadcast(again)
    print("\nbip125-replaceable", entry.get("bip125-replaceable"), world.node.rpc("getmempoolinfo"))
    assert world.follow(sent, again) == Pending(again.id)
    world.node.mine(1)
