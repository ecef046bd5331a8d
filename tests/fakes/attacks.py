# SPDX-License-Identifier: AGPL-3.0-or-later
"""Requests of every kind to a seat, and changes to them that are one lie each, with the rule that has to name it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from eth_abi.abi import decode, encode

from custody.chains.bitcoin.scripts import change_address, script_pubkey
from custody.chains.evm.safes import deposit_safe, owner_address
from custody.rules.birth import SeatRecord
from custody.rules.certificates import Rotation, WalletCertificate
from custody.rules.governance import Freeze
from custody.rules.intents import Anchor, Void
from custody.rules.payouts import VOID_CHANGE, PsbtPayload, SafeTx, void_safe_tx
from custody.rules.refusals import Rule
from custody.rules.roster import ApiClient
from custody.rules.seat_journal import Bound, Counter, SeatJournal, admit_freeze, anchor_key
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Chain, Tier
from tests.fakes.seat import BITCOIN, EVM, NOW, YEAR, ed25519, secp256k1, signed_by
from tests.fakes.trust import (
    Ask,
    Built,
    batch_tx,
    build,
    facts_of,
    packed,
    psbt_of,
    safe_tx,
    statement_of,
    transfer_data,
    transfers_of,
    world,
)

HOT: Final = Tier.CUSTOMER_HOT
OTHER: Final = b"\x5a" * 32


@dataclass(frozen=True, eq=False)
class Row:
    """One lie: what is asked, on which base, and the rule that names it."""

    id: str
    ask: Ask
    rule: Rule
    base: Callable[[], Request | None] = lambda: None

    def build(self) -> Built:
        """The arguments of `decide`."""
        return build(self.ask, self.base())


def hot(chain: Any = EVM) -> WalletCertificate:
    """The hot wallet's certificate."""
    return world().certificate(HOT, chain)


def _bare(payload: Any, **more: Any) -> Request:
    ask = Ask()
    wallet = (hot() if isinstance(payload, SafeTx) else hot(BITCOIN)).struct_hash
    statement = statement_of(ask, (), Anchor(EVM.name, wallet, "7"), SeatJournal(world().states["hot-1"]))
    return Request(payload, wallet, statement, **more)


def sweep_call(
    index: int, to: str | None = None, value: int = 10**18, data: bytes = b"", **fields: Any
) -> tuple[str, bytes]:
    """A deposit Safe and its execTransaction, pre-validated by the omnibus."""
    omnibus = hot().safe[0].address
    approved = bytes.fromhex(omnibus[2:]).rjust(32, b"\0") + bytes(32) + b"\1"
    types = ["address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes"]
    said: dict[str, Any] = {
        "operation": 0,
        "safe": 0,
        "base": 0,
        "price": 0,
        "token": ZERO_ADDRESS,
        "refund": ZERO_ADDRESS,
    }
    said |= {"signatures": approved} | fields
    arguments = [to or omnibus, value, data, *said.values()]
    return deposit_safe(hot(), index).text, bytes.fromhex("6a761202") + encode(types, arguments)


@cache
def sweep() -> Request:
    """Two deposit Safes into their omnibus."""
    one, call_one = sweep_call(3)
    two, call_two = sweep_call(4, to="0x" + "77" * 20, value=0, data=transfer_data(hot().safe[0].address, 5))
    return _bare(batch_tx(hot(), packed(one, 0, call_one) + packed(two, 0, call_two)))


@cache
def bitcoin_sweep() -> Request:
    """Two coins of the wallet's first certificate into one of its successor."""
    into = successor(BITCOIN)
    psbt = psbt_of(hot(BITCOIN), [], coins=2, units=10**7, fee=2_000, into=into.message)
    return _bare(PsbtPayload(BITCOIN.name, psbt.serialize()), certificates=(into,))


@cache
def bitcoin_churn() -> Request:
    """Two coins of the wallet into one of the same certificate: a fee for nothing."""
    psbt = psbt_of(hot(BITCOIN), [], coins=2, units=10**7, fee=2_000)
    return _bare(PsbtPayload(BITCOIN.name, psbt.serialize()))


def _void(
    payload: Any, anchor: Anchor, intents: tuple[bytes, ...] = (OTHER,), people: tuple[str, ...] = ("ana", "bo")
) -> Request:
    signed = world().deployment.people_sign(Void(anchor, intents), people)
    return _bare(payload, void=signed)


@cache
def void(intents: tuple[bytes, ...] = (OTHER,), people: tuple[str, ...] = ("ana", "bo"), nonce: int = 7) -> Request:
    """The void of nonce 7, or one that names something else."""
    payload = void_safe_tx(EVM.name, hot().safe[0].address, 7)
    return _void(payload, Anchor(EVM.name, hot().struct_hash, str(nonce)), intents, people)


@cache
def bitcoin_void() -> Request:
    """The outpoint that payouts of the tests are anchored on, back to the wallet's change address for voids."""
    made = psbt_of(hot(BITCOIN), [], fee=2_000, change=VOID_CHANGE)
    outpoint = f"{made.inputs[0].txid.hex()}:1"
    return _void(PsbtPayload(BITCOIN.name, made.serialize()), Anchor(BITCOIN.name, hot(BITCOIN).struct_hash, outpoint))


@cache
def successor(chain: Chain = EVM) -> Signed[WalletCertificate]:
    """The next certificate of the hot wallet: the same four seats with new keys."""
    deployment = world().deployment
    fresh = deployment.draft(f"customer_hot/{chain.name}/2", HOT, chain)
    return deployment.people_sign(replace(fresh, previous=hot(chain).struct_hash, safe=hot(chain).safe))


def swaps(old: WalletCertificate, new: WalletCertificate) -> list[bytes]:
    """The swapOwner calls that turn one owner set into another."""
    pairs = zip(old.seats, new.seats, strict=True)
    owners = [(owner_address(a.key.public), owner_address(b.key.public)) for a, b in pairs]
    return [bytes.fromhex("e318b52b") + encode(["address"] * 3, ["0x" + "00" * 19 + "01", a, b]) for a, b in owners]


def rotation(
    calls: int = 4, people: tuple[str, ...] = ("ana", "bo"), old: bytes = b"", extra: bytes = b"", new: bytes = b""
) -> Request:
    """The owner calls under a signed rotation."""
    safe = hot().safe[0].address
    leaves = b"".join(packed(safe, 0, data) for data in swaps(hot(), successor().message)[:calls])
    said = Rotation(old or hot().struct_hash, new or successor().message.struct_hash)
    signed = world().deployment.people_sign(said, people)
    return _bare(batch_tx(hot(), leaves + extra), rotation=signed, certificates=(successor(),))


def with_successor(journal: SeatJournal, chain: Chain = EVM) -> SeatJournal:
    """A journal that has accepted the next certificate of the hot wallet."""
    return replace(journal, state=replace(journal.state, certificates=(*journal.state.certificates, successor(chain))))


def rotated(journal: SeatJournal) -> SeatJournal:
    """A journal that has accepted the next certificate of the hot Bitcoin wallet: its coins are to be swept."""
    return with_successor(journal, BITCOIN)


def frozen(scope: str) -> Callable[[SeatJournal], SeatJournal]:
    """A journal with a freeze in force."""

    def freeze(journal: SeatJournal) -> SeatJournal:
        signed = signed_by(Freeze(scope, "phone stolen", NOW, NOW + 4000), world().domain, [secp256k1("dee")])
        learned = admit_freeze(journal, signed, NOW + 1)
        assert isinstance(learned, SeatJournal)
        return replace(
            journal, freezes=learned.freezes
        )  # without its line in the chain, which the statement would have to name

    return freeze


def bound(anchor: Anchor, meaning: bytes = OTHER, **fields: Any) -> Callable[[SeatJournal], SeatJournal]:
    """A journal that bound this anchor already."""
    entry = Bound(meaning, (OTHER,), fields.pop("intents", ()), (), fields.pop("voided", False))
    return lambda journal: replace(journal, anchors={anchor_key(anchor): entry}, **fields)


def rolled(joined: str = "newbie") -> dict[str, Any]:
    """A second roster version with one client more, for intents that pin the first."""
    first = world().states["hot-1"].roster
    assert first is not None
    client = ApiClient(joined, ed25519(joined).key, ("propose",), "customer", NOW + YEAR)
    version = replace(
        first.message, version=2, previous=first.message.struct_hash, clients=(*first.message.clients, client)
    )

    def journal(before: SeatJournal) -> SeatJournal:
        return replace(before, state=replace(before.state, roster=Signed(version, ())))

    return {"journal": journal, "request": lambda r: replace(r, rosters=(first,)), "statement": {"roster": 2}}


def changed_leaf(**changes: Any) -> Callable[[Any], Any]:
    """The decoded payload with its last leaf changed."""
    return lambda d: replace(d, leaves=(*d.leaves[:-1], replace(d.leaves[-1], **changes)))


def head(position: int, value: bytes) -> Callable[[SeatJournal], SeatJournal]:
    """A journal that stands elsewhere than the attestor saw: restored from an old copy, or forked."""
    record = SeatRecord(position, "signed", value, NOW, OTHER)
    return lambda journal: replace(journal, state=replace(journal.state, position=position, head=record.struct_hash))


def counter(asset: str, units: int, time: int = NOW) -> tuple[Counter, ...]:
    """A counter that is used up so far."""
    return (Counter(time, asset, units),)


def extra_facts(ask: Ask) -> Any:
    """The facts of the request's own intents, and of one that it does not carry."""
    transfers = transfers_of(ask)
    own = tuple(facts_of(ask, t, world().domain.digest(t.intent)) for t in transfers)
    return (*own, replace(own[0], intent=OTHER))


def stranger_output() -> bytes:
    """A change script of the cold wallet."""
    return script_pubkey(change_address(world().certificate(Tier.CUSTOMER_COLD, BITCOIN), 1))


def added_leaf(data: bytes, to: str = "") -> Callable[[Any], Any]:
    """The same payload with one leaf more at its end."""

    def batch(tx: SafeTx) -> SafeTx:
        (leaves,) = decode(["bytes"], tx.data[4:]) if tx.operation else (packed(tx.to, tx.value, tx.data),)
        return batch_tx(hot(), leaves + packed(to or hot().safe[0].address, 0, data), tx.nonce)

    return batch


def pays(to: str, value: int, data: bytes = b"") -> Callable[[Any], Any]:
    """Another call in the payload's place."""
    return lambda tx: safe_tx(hot(), to, value, data, tx.nonce)
