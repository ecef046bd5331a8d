# SPDX-License-Identifier: AGPL-3.0-or-later
"""P2WSH multisig: a wallet's descriptor from its seats' keys, its check against a certificate, and its addresses.

Pure. One spelling only: `wsh(sortedmulti(M,[fingerprint/path]xpub/<0;1>/*,…))#checksum` (BIP-380, 383, 389), keys in
the order of their text, hardened steps as `h`. Branch 0 receives, branch 1 is change. Keys inside each script are sorted
(BIP-67).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from embit import base58, bip32  # type: ignore[import-untyped]
from embit.descriptor import Descriptor  # type: ignore[import-untyped]
from embit.descriptor.checksum import checksum  # type: ignore[import-untyped]
from embit.descriptor.errors import DescriptorError  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]
from embit.script import address_to_scriptpubkey  # type: ignore[import-untyped]

from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.wallets import Address, Chain

RECEIVE: Final = 0
CHANGE: Final = 1
INDEX_WINDOW: Final = 1_000
"""Indices of each branch that a node watches: more than anybody pays change to (`rules.payouts.CHANGE_WINDOW`)."""
MAX_KEYS: Final = 15
"""Seats of one wallet. Consensus allows 20 in P2WSH; signing devices and other wallets stop at 15."""

_HARDENED: Final = 2**31
_SUFFIX: Final = "/<0;1>/*"
_KEY: Final = re.compile(r"\[([0-9a-f]{8})((?:/(?:0|[1-9][0-9]{0,9})h?)*)\]([xt]pub[1-9A-HJ-NP-Za-km-z]{107})")
_WHOLE: Final = re.compile(r"wsh\(sortedmulti\(([1-9][0-9]?),([^()]+)\)\)#([a-z0-9]{8})")
_BASE58: Final = "[1-9A-HJ-NP-Za-km-z]"
_PRIVATE: Final = re.compile(rf"(?<!{_BASE58})(?:[a-zA-Z]prv{_BASE58}{{20}}|[5KLc9]{_BASE58}{{50,51}}(?!{_BASE58}))")
"""An extended private key, or a single one as wallets export it (WIF). Only where a key begins: one public key in some
thousand has "prv" in the middle of it."""


def wallet_descriptor(m: int, keys: Sequence[str]) -> str:
    """The one descriptor of M of these keys, each `[fingerprint/path]xpub` (tpub on test networks), in any order.

    Raises InvalidInput: malformed, key_reused, wrong_network (two networks mixed), threshold_out_of_range.
    """
    if not 1 <= m <= len(keys) <= MAX_KEYS:
        raise InvalidInput("m", Rule.THRESHOLD_OUT_OF_RANGE, f"{m} of {len(keys)}", f"1 <= M <= N <= {MAX_KEYS}")
    publics = [_public_key(key, f"keys[{i}]") for i, key in enumerate(keys)]
    if len(set(publics)) != len(keys):
        raise InvalidInput("keys", Rule.KEY_REUSED, "a public key twice", "each key once")
    if len({_prefix(key) for key in keys}) > 1:
        raise InvalidInput("keys", Rule.WRONG_NETWORK, "xpub and tpub", "keys of one network")
    body = f"wsh(sortedmulti({m},{','.join(key + _SUFFIX for key in sorted(keys))}))"
    return f"{body}#{checksum(body)}"


def check_script(certificate: WalletCertificate) -> Iterator[Refusal]:
    """Whether the descriptor is exactly the one that this certificate's M and seats make, and nothing private is in it.

    Everything wrong is script_does_not_match_keys with a `why`; no refusal quotes a descriptor that may hold a private key.
    """
    if len(certificate.script) != 1:
        yield _refusal("script", got=len(certificate.script), want="one descriptor")
        return
    descriptor = certificate.script[0].descriptor
    seats = [seat.key.xpub for seat in certificate.seats]
    if any(_PRIVATE.search(text) for text in (descriptor, *seats)):
        yield _refusal("private key", got="a private key", want="public keys only")
        return
    faults = [*_check_keys(certificate, seats), *_check_form(descriptor, certificate.m, seats)]
    yield from faults
    if not faults and descriptor != wallet_descriptor(certificate.m, seats):
        yield _refusal("spelling", got=descriptor, want=wallet_descriptor(certificate.m, seats))


def receive_address(certificate: WalletCertificate, index: int) -> Address:
    """The address at an index of branch 0. Raises Refused where `check_script` refuses, InvalidInput for the index."""
    return derive_address(certificate, RECEIVE, index)


def change_address(certificate: WalletCertificate, index: int) -> Address:
    """The address at an index of branch 1; raises as `receive_address`."""
    return derive_address(certificate, CHANGE, index)


def derive_address(certificate: WalletCertificate, branch: int, index: int) -> Address:
    """The address at an index of a branch (0 receives, 1 is change)."""
    chain = Chain(certificate.chain)
    script = _branch(certificate, check_branch(branch)).derive(check_index(index)).script_pubkey()
    return Address(chain, str(script.address(NETWORKS[chain.bitcoin_network])))


@lru_cache(maxsize=4096)
def witness_script(certificate: WalletCertificate, branch: int, index: int) -> bytes:
    """The script whose hash the address is: `M <key>… N OP_CHECKMULTISIG` with sorted keys."""
    derived = _branch(certificate, check_branch(branch)).derive(check_index(index))
    return bytes(derived.witness_script().data)


@lru_cache(maxsize=1 << 16)
def script_pubkey(address: Address) -> bytes:
    """The output script that pays an address of any kind. Raises InvalidInput for one that is not on a Bitcoin network."""
    Address.parse(address.chain, address.text)
    script = None if address.chain.is_evm else address_to_scriptpubkey(address.text)
    if script is None:
        raise InvalidInput("address", Rule.WRONG_NETWORK, address.text, "a Bitcoin address")
    return bytes(script.data)


def check_index(index: int) -> int:
    """An index that a public key can derive; anything else raises InvalidInput."""
    if type(index) is not int or not 0 <= index < _HARDENED:
        raise InvalidInput("index", Rule.MALFORMED, repr(index), "0 to 2^31 - 1")
    return index


def check_branch(branch: int) -> int:
    """0 or 1; anything else raises InvalidInput."""
    if type(branch) is not int or branch not in (RECEIVE, CHANGE):
        raise InvalidInput("branch", Rule.MALFORMED, repr(branch), "0 (receive) or 1 (change)")
    return branch


@lru_cache(maxsize=128)
def _branch(certificate: WalletCertificate, branch: int) -> Descriptor:
    """The checked descriptor with its keys derived down to a branch, so that an address costs one step for each key."""
    raise_if(check_script(certificate))
    whole = Descriptor.from_string(certificate.script[0].descriptor)
    keys = (key.key.derive([branch]).to_base58() + "/*" for key in whole.keys)
    return Descriptor.from_string(f"wsh(sortedmulti({certificate.m},{','.join(keys)}))")


def _refusal(why: str, **operands: object) -> Refusal:
    return Refusal(Rule.SCRIPT_MISMATCH, why=why, **operands)


def _prefix(key: str) -> str:
    return key.partition("]")[2][:4]


def _public_key(key: str, field: str) -> bytes:
    """The 33 bytes of an extended key with origin. Depth and last step must be those of the origin's path (BIP-32)."""
    match = _KEY.fullmatch(key)
    if match is None:
        got = "a private key" if _PRIVATE.search(key) else repr(key[:150])
        raise InvalidInput(field, Rule.MALFORMED, got, "[fingerprint/path]xpub, hardened steps as h")
    try:
        path = [_step(step) for step in match[2].split("/")[1:]]
        extended = bip32.HDKey.parse(base58.decode_check(match[3]))
        public = bytes(extended.sec())
    except (ValueError, bip32.HDError) as error:  # base58 checksum, a point that is not on the curve, a step above 2^31
        raise InvalidInput(
            field, Rule.WRONG_CHECKSUM, repr(key[:150]), "an extended public key with its checksum"
        ) from error
    if extended.is_private or extended.depth != len(path) or (path and extended.child_number != path[-1]):
        want = f"depth {len(path)} and the origin's last step"
        raise InvalidInput(field, Rule.MALFORMED, f"a key of depth {extended.depth}", want)
    return public


def _step(text: str) -> int:
    number = int(text.removesuffix("h"))
    if number >= _HARDENED:  # 2147483650 would be another spelling of 2h
        raise InvalidInput("path", Rule.MALFORMED, text, "steps below 2^31, hardened ones as h")
    return number + _HARDENED * text.endswith("h")


def _check_keys(certificate: WalletCertificate, seats: Sequence[str]) -> Iterator[Refusal]:
    try:
        wanted = "xpub" if Chain(certificate.chain).bitcoin_network == "main" else "tpub"
    except InvalidInput as error:
        yield _refusal("chain", got=error.got, want=error.want)
        return
    publics: list[bytes] = []
    for seat in certificate.seats:
        if _prefix(seat.key.xpub) != wanted:
            yield _refusal("network", seat=seat.key.seat, got=_prefix(seat.key.xpub), want=wanted)
            continue
        try:
            publics.append(_public_key(seat.key.xpub, "xpub"))
        except InvalidInput as error:
            yield _refusal("key", seat=seat.key.seat, got=error.got, want=error.want)
    # The same key under another origin or chain code would let one seat fill two places of the quorum.
    for public, times in Counter(publics).items():
        if times > 1:
            yield _refusal("key twice", got=public.hex(), times=times, want="each seat a key of its own")
    if not 1 <= certificate.m <= len(seats) <= MAX_KEYS or len(seats) != certificate.n:
        yield _refusal(
            "threshold", got=f"{certificate.m} of {certificate.n}, {len(seats)} seats", want="1 <= M <= N seats"
        )


def _check_form(descriptor: str, m: int, seats: Sequence[str]) -> Iterator[Refusal]:
    match = _WHOLE.fullmatch(descriptor)
    if match is None:
        yield _refusal("form", got=descriptor[:60], want="wsh(sortedmulti(M,keys))#checksum")
        return
    body = descriptor.partition("#")[0]
    try:
        right = checksum(body)
    except DescriptorError as error:
        yield _refusal("form", got=str(error), want="a descriptor's characters")
        return
    if match[3] != right:
        yield _refusal("checksum", got=match[3], want=right)
    if int(match[1]) != m:
        yield _refusal("threshold", got=int(match[1]), want=m)
    keys = match[2].split(",")
    odd = [key for key in keys if not key.endswith(_SUFFIX)]
    if odd:
        yield _refusal("branches", got=odd[0].partition("]")[2], want=f"xpub{_SUFFIX}, both branches")
        return
    found = [key.removesuffix(_SUFFIX) for key in keys]
    for key in sorted(set(found) - set(seats)):
        yield _refusal("stranger's key", got=key, want="keys of the certificate's seats")
    for key in sorted(set(seats) - set(found)):
        yield _refusal("seat left out", got="absent", want=key)
    if len(found) != len(set(found)):
        yield _refusal("key twice", got=len(found), want=len(set(found)))
    if found != sorted(found):
        yield _refusal("order", got="another order", want="keys sorted by their text")
