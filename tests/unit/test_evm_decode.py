# SPDX-License-Identifier: AGPL-3.0-or-later
"""The SafeTx decoder: every form that it knows, every other byte refused, and digests equal to safe-eth-py's."""

from dataclasses import replace
from typing import Any, Final

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.chains.evm.decode import _deposit_table, decode, safe_tx_hash
from custody.chains.evm.safes import deposit_safe
from custody.rules.payouts import DecodedPayload, IndexWindow, Leaf, LeafKind, Place, SafeTx, Surroundings
from custody.rules.refusals import Rule
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Tier
from tests.fakes.attacks import added_leaf, hot, successor, swaps, sweep_call
from tests.fakes.seat import BITCOIN, EVM
from tests.fakes.trust import (
    ASSETS,
    PAYEE,
    STRANGER,
    USDX,
    batch_tx,
    multi_send,
    packed,
    safe_tx,
    transfer_data,
    world,
)

SAFE: Final = hot().safe[0].address
TOKEN: Final = str(USDX.contract)
MULTISEND: Final = hot().safe[0].multisend
TO: Final = PAYEE[EVM.name]
OWN: Final = hot().struct_hash
COLD: Final = world().certificate(Tier.CUSTOMER_COLD, EVM)


def around(**changes: Any) -> Surroundings:
    """The hot Safe, with the cold one recognised."""
    return replace(Surroundings(OWN, hot(), ASSETS, (COLD,)), **changes)


def leaves_of(tx: SafeTx) -> tuple[Leaf, ...]:
    """What a payload that decodes does."""
    found = decode(tx, around())
    assert isinstance(found, DecodedPayload), [str(refusal) for refusal in found]
    return found.leaves


def call(name: str, types: list[str], values: list[Any]) -> bytes:
    """Call data of any function."""
    return keccak(text=f"{name}({','.join(types)})")[:4] + encode(types, values)


SWEEP_TO, SWEEP = sweep_call(3)
NATIVE: Final = Leaf(LeafKind.NATIVE, "ETH", 5, TO)
TOKENS: Final = Leaf(LeafKind.TOKEN, "USDX", 6, TO)
SWEPT: Final = Leaf(LeafKind.SWEEP, "ETH", 10**18, SAFE, Place(OWN), Place(OWN, index=3))
_SWAP = swaps(hot(), successor().message)[0]


@pytest.mark.parametrize(
    ("tx", "leaves"),
    [
        pytest.param(safe_tx(hot(), TO, 5), (NATIVE,), id="native"),
        pytest.param(safe_tx(hot(), TOKEN, 0, transfer_data(TO, 6)), (TOKENS,), id="token"),
        pytest.param(safe_tx(hot(), TOKEN.lower(), 0, transfer_data(TO.lower(), 6)), (TOKENS,), id="lower case"),
        pytest.param(safe_tx(hot(), SAFE), (Leaf(LeafKind.VOID),), id="void"),
        pytest.param(safe_tx(hot(), SWEEP_TO, 0, SWEEP), (SWEPT,), id="sweep"),
        pytest.param(
            batch_tx(hot(), packed(TO, 5, b"") + packed(TOKEN, 0, transfer_data(TO, 6)) + packed(SWEEP_TO, 0, SWEEP)),
            (NATIVE, TOKENS, SWEPT),
            id="batch",
        ),
        pytest.param(
            safe_tx(hot(), COLD.safe[0].address, 5),
            (Leaf(LeafKind.NATIVE, "ETH", 5, COLD.safe[0].address, Place(COLD.struct_hash)),),
            id="to another wallet of ours",
        ),
        pytest.param(
            safe_tx(hot(), deposit_safe(hot(), 9).text, 5),
            (Leaf(LeafKind.NATIVE, "ETH", 5, deposit_safe(hot(), 9).text, Place(OWN, index=9)),),
            id="to a deposit address, told as one",
        ),
    ],
)
def test_known_forms(tx: SafeTx, leaves: tuple[Leaf, ...]) -> None:
    """Each form that a Safe may sign, and what it does."""
    assert leaves_of(tx) == leaves


@pytest.mark.parametrize("name", ["swapOwner", "addOwnerWithThreshold", "removeOwner", "changeThreshold"])
def test_owner_calls_are_read(name: str) -> None:
    """The four owner calls are leaves of their own, which nothing but a rotation may carry."""
    types: dict[str, tuple[list[str], list[Any]]] = {
        "swapOwner": (["address"] * 3, [STRANGER, TO, STRANGER]),
        "addOwnerWithThreshold": (["address", "uint256"], [TO, 3]),
        "removeOwner": (["address", "address", "uint256"], [STRANGER, TO, 3]),
        "changeThreshold": (["uint256"], [3]),
    }
    (leaf,) = leaves_of(safe_tx(hot(), SAFE, 0, call(name, *types[name])))
    assert leaf.kind is LeafKind.OWNER_CHANGE
    assert leaf.owners is not None


def dirty(data: bytes, at: int) -> bytes:
    """One bit set where the encoding has padding."""
    return data[:at] + bytes([data[at] | 1]) + data[at + 1 :]


def sweep_tx(**fields: Any) -> SafeTx:
    """A sweep with something else in it."""
    to, data = sweep_call(3, **fields)
    return safe_tx(hot(), to, 0, data)


LEAF: Final = packed(TO, 5, b"")

REFUSED: Final = [
    ("another chain", replace(safe_tx(hot(), TO, 5), chain="eip155:1"), Rule.WRONG_WALLET),
    ("another Safe", replace(safe_tx(hot(), TO, 5), safe=STRANGER), Rule.WRONG_WALLET),
    ("Bybit: a delegatecall", safe_tx(hot(), STRANGER, 0, b"\1\2\3\4", operation=1), Rule.DELEGATECALL),
    ("a delegatecall to a token", safe_tx(hot(), TOKEN, 0, transfer_data(TO, 6), operation=1), Rule.DELEGATECALL),
    ("an operation that is none", safe_tx(hot(), MULTISEND, 0, multi_send(LEAF), operation=2), Rule.DELEGATECALL),
    ("a delegatecall inside a batch", batch_tx(hot(), packed(TO, 5, b"", 1)), Rule.DELEGATECALL),
    ("a batch called, not delegated to", safe_tx(hot(), MULTISEND, 0, multi_send(LEAF)), Rule.UNKNOWN_CALL),
    ("a batch inside a batch", batch_tx(hot(), packed(MULTISEND, 0, multi_send(LEAF))), Rule.UNKNOWN_CALL),
    ("an empty batch", batch_tx(hot(), b""), Rule.UNKNOWN_CALL),
    ("a batch with a value", replace(batch_tx(hot(), LEAF), value=1), Rule.NOT_CANONICAL),
    ("bytes behind a batch", replace(batch_tx(hot(), LEAF), data=multi_send(LEAF) + b"\0"), Rule.NOT_CANONICAL),
    ("dirty padding of a batch", replace(batch_tx(hot(), LEAF), data=dirty(multi_send(LEAF), -1)), Rule.NOT_CANONICAL),
    ("a torn leaf", batch_tx(hot(), LEAF + LEAF[:-1]), Rule.NOT_CANONICAL),
    ("a leaf that claims more bytes", batch_tx(hot(), LEAF[:-1] + b"\1"), Rule.NOT_CANONICAL),
    ("a leaf of 2^256 bytes", batch_tx(hot(), LEAF[:-32] + b"\xff" * 32), Rule.NOT_CANONICAL),
    ("another function of a batch", safe_tx(hot(), MULTISEND, 0, b"\1\2\3\4", operation=1), Rule.NOT_CANONICAL),
    ("safeTxGas", replace(safe_tx(hot(), TO, 5), safe_tx_gas=1), Rule.GAS_FIELDS),
    ("baseGas", replace(safe_tx(hot(), TO, 5), base_gas=1), Rule.GAS_FIELDS),
    ("gasPrice", replace(safe_tx(hot(), TO, 5), gas_price=1), Rule.GAS_FIELDS),
    ("gasToken", replace(safe_tx(hot(), TO, 5), gas_token=TOKEN), Rule.GAS_FIELDS),
    ("refundReceiver", replace(safe_tx(hot(), TO, 5), refund_receiver=STRANGER), Rule.GAS_FIELDS),
    ("nothing paid", safe_tx(hot(), TO, 0), Rule.NOT_POSITIVE),
    ("to nobody", safe_tx(hot(), ZERO_ADDRESS, 5), Rule.MALFORMED),
    ("data to a stranger", safe_tx(hot(), TO, 5, b"\0"), Rule.UNKNOWN_CALL),
    ("a look-alike token", safe_tx(hot(), STRANGER, 0, transfer_data(TO, 6)), Rule.UNKNOWN_ASSET),
    ("approve", safe_tx(hot(), TOKEN, 0, call("approve", ["address", "uint256"], [STRANGER, 6])), Rule.UNKNOWN_CALL),
    (
        "transferFrom",
        safe_tx(hot(), TOKEN, 0, call("transferFrom", ["address", "address", "uint256"], [SAFE, STRANGER, 6])),
        Rule.UNKNOWN_CALL,
    ),
    ("a transfer with a value", safe_tx(hot(), TOKEN, 1, transfer_data(TO, 6)), Rule.NOT_CANONICAL),
    ("bytes behind a transfer", safe_tx(hot(), TOKEN, 0, transfer_data(TO, 6) + b"\0"), Rule.NOT_CANONICAL),
    ("a short transfer", safe_tx(hot(), TOKEN, 0, transfer_data(TO, 6)[:-1]), Rule.NOT_CANONICAL),
    ("dirty bits above an address", safe_tx(hot(), TOKEN, 0, dirty(transfer_data(TO, 6), 4)), Rule.NOT_CANONICAL),
    ("a transfer of nothing", safe_tx(hot(), TOKEN, 0, transfer_data(TO, 0)), Rule.NOT_POSITIVE),
    ("a transfer to nobody", safe_tx(hot(), TOKEN, 0, transfer_data(ZERO_ADDRESS, 6)), Rule.NOT_POSITIVE),
    ("coins to itself", safe_tx(hot(), SAFE, 1), Rule.OWN_ADDRESS),
    ("a module", safe_tx(hot(), SAFE, 0, call("enableModule", ["address"], [STRANGER])), Rule.SAFE_CHANGED),
    ("a guard", safe_tx(hot(), SAFE, 0, call("setGuard", ["address"], [STRANGER])), Rule.SAFE_CHANGED),
    ("a handler", safe_tx(hot(), SAFE, 0, call("setFallbackHandler", ["address"], [STRANGER])), Rule.SAFE_CHANGED),
    (
        "WazirX: a new implementation",
        safe_tx(hot(), SAFE, 0, call("changeMasterCopy", ["address"], [STRANGER])),
        Rule.SAFE_CHANGED,
    ),
    (
        "a module inside a batch",
        added_leaf(call("enableModule", ["address"], [STRANGER]))(safe_tx(hot(), TO, 5)),
        Rule.SAFE_CHANGED,
    ),
    ("a void inside a batch", added_leaf(b"")(safe_tx(hot(), TO, 5)), Rule.SAFE_CHANGED),
    ("an owner call with bytes behind", safe_tx(hot(), SAFE, 0, _SWAP + b"\0"), Rule.NOT_CANONICAL),
    ("a sweep to a stranger", sweep_tx(to=STRANGER), Rule.SWEEP_STRANGER),
    ("a token sweep to a stranger", sweep_tx(to=TOKEN, value=0, data=transfer_data(STRANGER, 5)), Rule.SWEEP_STRANGER),
    ("a sweep to the cold wallet", sweep_tx(to=COLD.safe[0].address), Rule.SWEEP_STRANGER),
    ("a sweep of an unknown token", sweep_tx(to=STRANGER, value=0, data=transfer_data(SAFE, 5)), Rule.UNKNOWN_ASSET),
    ("a sweep that calls", sweep_tx(data=b"\1\2\3\4"), Rule.UNKNOWN_CALL),
    ("a sweep that delegates", sweep_tx(operation=1), Rule.DELEGATECALL),
    ("a sweep with safeTxGas", sweep_tx(safe=1), Rule.GAS_FIELDS),
    ("a sweep with baseGas", sweep_tx(base=1), Rule.GAS_FIELDS),
    ("a sweep with gasPrice", sweep_tx(price=1), Rule.GAS_FIELDS),
    ("a sweep with gasToken", sweep_tx(token=TOKEN), Rule.GAS_FIELDS),
    ("a sweep with a refund", sweep_tx(refund=STRANGER), Rule.GAS_FIELDS),
    ("a sweep signed otherwise", sweep_tx(signatures=bytes(65)), Rule.NOT_CANONICAL),
    ("a sweep with two signatures", sweep_tx(signatures=SWEEP[-96:-31] * 2), Rule.NOT_CANONICAL),
    ("a sweep of nothing", sweep_tx(value=0), Rule.NOT_POSITIVE),
    ("a sweep with a value", safe_tx(hot(), SWEEP_TO, 1, SWEEP), Rule.NOT_CANONICAL),
    ("bytes behind a sweep", safe_tx(hot(), SWEEP_TO, 0, SWEEP + b"\0"), Rule.NOT_CANONICAL),
    ("execTransaction of a stranger's Safe", safe_tx(hot(), STRANGER, 0, SWEEP), Rule.UNKNOWN_CALL),
    ("execTransaction of the cold wallet", safe_tx(hot(), COLD.safe[0].address, 0, SWEEP), Rule.UNKNOWN_CALL),
    ("a deposit Safe beyond the window", safe_tx(hot(), sweep_call(1000)[0], 0, SWEEP), Rule.UNKNOWN_CALL),
]


@pytest.mark.parametrize(("tx", "rule"), [pytest.param(tx, rule, id=name) for name, tx, rule in REFUSED])
def test_every_other_byte_is_refused(tx: SafeTx, rule: Rule) -> None:
    """One thing wrong, one rule named."""
    found = decode(tx, around())
    assert isinstance(found, tuple), found
    assert {refusal.rule for refusal in found} == {rule}


def test_a_wider_window_finds_later_deposits() -> None:
    """The host widens the window as customers come; the last index counts."""
    to, data = sweep_call(1000)
    found = decode(safe_tx(hot(), to, 0, data), around(window=IndexWindow(receive=1000)))
    assert isinstance(found, DecodedPayload)
    assert found.leaves[0].source == Place(OWN, index=1000)


def test_every_reason_shows_at_once() -> None:
    """A payload with three faults is refused with all three."""
    tx = replace(safe_tx(hot(), STRANGER, 0, b"\1\2\3\4", operation=1), gas_price=1, safe=STRANGER)
    found = decode(tx, around())
    assert isinstance(found, tuple)
    assert {r.rule for r in found} == {Rule.DELEGATECALL, Rule.GAS_FIELDS, Rule.WRONG_WALLET}


def test_a_certificate_of_bitcoin_has_no_safe() -> None:
    """The wrong kind of certificate is refused, not guessed at."""
    bitcoin = world().certificate(Tier.CUSTOMER_HOT, BITCOIN)
    found = decode(safe_tx(hot(), TO, 5), around(certificate=bitcoin))
    assert isinstance(found, tuple)
    assert [r.rule for r in found] == [Rule.WRONG_NETWORK]


def test_a_forged_certificate_is_not_recognised() -> None:
    """A certificate whose Safe does not derive from its keys gives nobody the name of a wallet of ours."""
    forged = replace(COLD, safe=(replace(COLD.safe[0], address=STRANGER),))
    found = decode(safe_tx(hot(), STRANGER, 5), around(others=(forged,)))
    assert isinstance(found, DecodedPayload)
    assert found.leaves[0].place is None
    later = replace(COLD, previous=COLD.struct_hash)
    rotated = decode(safe_tx(hot(), COLD.safe[0].address, 5), around(others=(COLD, later)))
    assert isinstance(rotated, DecodedPayload)
    assert rotated.leaves[0].place is not None


def test_deposit_table_is_the_derivation() -> None:
    """The fast table gives the addresses that `safes.deposit_safe` derives one by one."""
    table = _deposit_table(hot(), 300)
    assert len(table) == 301
    for index in (0, 1, 2, 255, 256, 300):
        assert table[deposit_safe(hot(), index).text.lower()] == index


def test_anchor_and_digest() -> None:
    """The anchor is (Safe, nonce), and the one digest is for the Safe's own keys."""
    tx = safe_tx(hot(), TO, 5, nonce=12)
    found = decode(tx, around())
    assert isinstance(found, DecodedPayload)
    assert (found.anchor.reference, found.fee, found.native) == ("12", 0, "ETH")
    assert found.digests == (safe_tx_hash(tx),)
    others = [replace(tx, nonce=13), replace(tx, value=6), replace(tx, chain="eip155:1"), replace(tx, safe=STRANGER)]
    assert len({safe_tx_hash(other) for other in (tx, *others)}) == 5


@pytest.mark.parametrize(
    "tx", [pytest.param(t, id=i) for i, t in (("call", safe_tx(hot(), TO, 5)), ("batch", batch_tx(hot(), LEAF)))]
)
def test_digest_and_batch_equal_safe_eth_py(tx: SafeTx) -> None:
    """The builder's library, which shares no code with this decoder, hashes and packs the same."""
    from eth_account.messages import encode_typed_data  # noqa: PLC0415
    from eth_typing import URI, ChecksumAddress, HexAddress, HexStr  # noqa: PLC0415
    from safe_eth.eth import EthereumClient  # noqa: PLC0415
    from safe_eth.safe.multi_send import MultiSendOperation, MultiSendTx  # noqa: PLC0415
    from safe_eth.safe.safe_tx import SafeTx as LibrarySafeTx  # noqa: PLC0415

    def checked(text: str) -> ChecksumAddress:
        return ChecksumAddress(HexAddress(HexStr(text)))

    library = LibrarySafeTx(
        EthereumClient(URI("http://127.0.0.1:9")), checked(tx.safe), checked(tx.to), tx.value, tx.data, tx.operation, 0, 0, 0, None, None,
        safe_nonce=tx.nonce, safe_version="1.4.1", chain_id=EVM.evm_id,
    )  # fmt: skip
    assert bytes(library.safe_tx_hash) == safe_tx_hash(tx)
    leaf = MultiSendTx(MultiSendOperation.CALL, checked(TO), 5, b"")
    assert bytes(leaf.encoded_data) == LEAF
    signable = encode_typed_data(full_message=library.eip712_structured_data)
    assert keccak(b"\x19" + signable.version + signable.header + signable.body) == safe_tx_hash(tx)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([TO, TOKEN, SAFE, MULTISEND, SWEEP_TO]),
    st.integers(0, 1),
    st.integers(0, 3),
)
def test_random_bytes_never_raise_and_never_pay(data: bytes, to: str, operation: int, form: int) -> None:
    """Whatever the bytes, the answer is leaves or refusals; data that is no known call never decodes to a payment."""
    prefix = [b"", bytes.fromhex("a9059cbb"), bytes.fromhex("8d80ff0a"), bytes.fromhex("6a761202")][form]
    found = decode(safe_tx(hot(), to, 0, prefix + data, operation=operation), around())
    if isinstance(found, DecodedPayload):
        assert [leaf.kind for leaf in found.leaves] in ([LeafKind.VOID], [LeafKind.TOKEN])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2000), st.integers(1, 255))
def test_any_changed_byte_changes_what_is_seen(at: int, flip: int) -> None:
    """A batch with one byte changed is refused or decodes to other leaves: no byte is signed that nobody looked at."""
    tx = batch_tx(hot(), LEAF + packed(TOKEN, 0, transfer_data(TO, 6)) + packed(SWEEP_TO, 0, SWEEP))
    position = at % len(tx.data)
    data = tx.data[:position] + bytes([tx.data[position] ^ flip]) + tx.data[position + 1 :]
    found = decode(replace(tx, data=data), around())
    assert isinstance(found, tuple) or found.leaves != leaves_of(tx)
