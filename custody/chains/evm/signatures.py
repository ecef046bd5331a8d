# SPDX-License-Identifier: AGPL-3.0-or-later
"""Owners' signatures of a SafeTx: each checked against the certificate, then packed as Safe 1.4.1 wants them."""

from collections.abc import Iterator, Sequence
from typing import Final

from eth_keys.datatypes import Signature as EthSignature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from custody.chains.evm.safes import owner_address
from custody.rules.certificates import WalletCertificate
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Rule, raise_if

SIZE: Final = 65


def pack(certificate: WalletCertificate, digest: bytes, given: Sequence[SeatSignatures]) -> bytes:
    """M signatures in ascending order of owner. Raises Refused with everything that is wrong with any of them.

    On chain a stranger, a duplicate or a wrong order is GS026 and too few are GS020, each after gas was spent.
    """
    seats = {seat.key.seat: owner_address(seat.key.public) for seat in certificate.seats}
    refusals: list[Refusal] = []
    by_owner: dict[str, bytes] = {}
    for each in given:
        owner = seats.get(each.seat)
        faults = [*_check(each, owner, certificate, digest)]
        if owner in by_owner:
            faults.append(Refusal(Rule.SIGNER_TWICE, seat=each.seat, owner=owner))
        if not faults and owner is not None:
            by_owner[owner] = each.signatures[0]
        refusals += faults
    if len(by_owner) < certificate.m:
        refusals.append(Refusal(Rule.QUORUM_NOT_REACHED, signatures=len(by_owner), want=certificate.m))
    raise_if(refusals)
    ascending = sorted(by_owner, key=lambda owner: int(owner, 16))[: certificate.m]
    packed = b"".join(by_owner[owner] for owner in ascending)
    raise_if(check_packed(certificate, digest, packed))
    return packed


def check_packed(certificate: WalletCertificate, digest: bytes, packed: bytes) -> Iterator[Refusal]:
    """Packed signatures as the contract reads them: exactly M, each an owner's over the digest, owners ascending."""
    if len(packed) != SIZE * certificate.m:
        yield Refusal(Rule.QUORUM_NOT_REACHED, bytes=len(packed), want=SIZE * certificate.m)
        return
    owners = {int(owner_address(seat.key.public), 16) for seat in certificate.seats}
    last = 0
    for start in range(0, len(packed), SIZE):
        signer = recovered(packed[start : start + SIZE], digest)
        found = int(signer, 16) if signer is not None else 0
        if found not in owners:
            yield Refusal(Rule.SIGNER_UNKNOWN, position=start // SIZE, got=signer, want="an owner")
        elif found <= last:
            yield Refusal(
                Rule.NOT_CANONICAL, of="signatures", position=start // SIZE, want="owners ascending, each once"
            )
        last = found


def recovered(signature: bytes, digest: bytes) -> str | None:
    """The address that made a signature r ‖ s ‖ v with v 27 or 28; None for anything else."""
    if len(signature) != SIZE or signature[64] not in {27, 28}:
        return None
    try:
        made = EthSignature(signature_bytes=signature[:64] + bytes([signature[64] - 27]))
        return str(made.recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadSignature, ValidationError, ValueError):
        return None


def _check(each: SeatSignatures, owner: str | None, certificate: WalletCertificate, digest: bytes) -> Iterator[Refusal]:
    if owner is None:
        yield Refusal(Rule.SIGNER_UNKNOWN, seat=each.seat, want="a seat of the certificate")
    elif each.certificate != certificate.struct_hash:
        yield Refusal(Rule.WRONG_WALLET, seat=each.seat, got=each.certificate.hex(), want=certificate.struct_hash.hex())
    elif len(each.signatures) != 1:
        yield Refusal(Rule.MALFORMED, seat=each.seat, got=f"{len(each.signatures)} signatures", want="one")
    elif recovered(each.signatures[0], digest) != owner:
        got = recovered(each.signatures[0], digest)
        yield Refusal(Rule.SIGNATURE_INVALID, seat=each.seat, got=got, want=owner)
