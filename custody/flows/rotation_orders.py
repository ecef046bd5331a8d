# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people ordered of a wallet's keys: its next certificate and, on EVM, the rotation that leads there. One at a time.

An order is a request to the worker and no authority: each seat verifies certificate and rotation by its own roster.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from custody.flows.birth import check_wallet
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.mirror import CERTIFICATE, put_signed
from custody.flows.ports import Store, UnitOfWork
from custody.rules.certificates import Rotation, WalletCertificate, check_succession
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32

CheckScript = Callable[[WalletCertificate], Iterator[Refusal]]


@dataclass(frozen=True, slots=True)
class Order:
    """One order of a wallet. `rotation` is None on Bitcoin, where the successor alone says it."""

    number: int
    certificate: Signed[WalletCertificate]
    rotation: Signed[Rotation] | None


def standing(work: UnitOfWork, wallet: Wallet) -> Order | None:
    """The order that is under way: not withdrawn by a void, and its certificate not in the mirror yet. Raises InvalidInput."""
    number = _next(work, wallet.name) - 1
    if number < 0 or work.documents.get(_closed(wallet.name), str(number)) is not None:
        return None
    found = _read(work.documents.get(_kind(wallet.name), str(number)), number)
    known = {signed.message.struct_hash for signed in wallet.certificates}
    return None if found.certificate.message.struct_hash in known else found


def place(
    store: Store,
    kernel: Kernel,
    certificate: Signed[WalletCertificate],
    rotation: Signed[Rotation] | None,
    check_script: CheckScript,
    now: int,
) -> Order:
    """Check everything that can be checked here and record the order for the worker. The same again is fine.

    Raises Refused: not_the_successor (of a wallet's newest certificate), quorum_not_reached (of certificate or rotation),
    tier_changed, key_reused, name_reused, script_mismatch (another Safe, or a script that its keys do not make), everything of
    `Roster.check_certificate`, already_exists (another order of this wallet is under way).
    """
    new = certificate.message
    wallet = _wallet(kernel, new)
    known = [signed.message for each in kernel.inventory for signed in each.certificates]
    same_safe = wallet.chain.is_evm and len(new.safe) == 1
    refusals = [
        *check_succession(wallet.certificate, new),
        *check_wallet(kernel.roster, certificate, known, _nothing if same_safe else check_script, now),
        *(_check_safe(wallet, new) if same_safe else ()),
        *_check_rotation(kernel, wallet, new, rotation, now),
    ]
    if refusals:
        raise Refused(refusals)

    def work(work: UnitOfWork) -> Order:
        under_way = standing(work, wallet)
        if under_way is not None:
            if under_way.certificate.message != new:
                want = "the order that is under way to end, or its anchor to be voided"
                raise Refused([Refusal(Rule.ALREADY_EXISTS, wallet=wallet.name.hex(), want=want)])
            return under_way
        order = Order(_next(work, wallet.name), certificate, rotation)
        body = {
            "certificate": certificate.to_json(),
            "rotation": None if rotation is None else rotation.to_json(),
        }
        work.documents.put(_kind(wallet.name), str(order.number), body)
        return order

    return store.run(work)


def close(work: UnitOfWork, wallet: Wallet, order: Order) -> None:
    """People voided its anchor: it leads nowhere any more, and another one may be placed."""
    body = {"certificate": order.certificate.message.struct_hash.hex()}
    work.documents.put(_closed(wallet.name), str(order.number), body)


def fulfil(work: UnitOfWork, wallet: Wallet, order: Order) -> None:
    """The new seats have it: from here on it is the wallet's newest certificate. Raises Refused where another one followed already.

    Two successors of one certificate would make the whole mirror unreadable (mirror.py), so that is looked at in here.
    """
    new = order.certificate.message
    for row in work.documents.all(CERTIFICATE):
        known = Signed.from_json(WalletCertificate, dict(row)).message
        if known.previous == new.previous and known != new:
            want = "one successor only"
            raise Refused([Refusal(Rule.NOT_SUCCESSOR, certificate=wallet.certificate.struct_hash.hex(), want=want)])
    put_signed(work.documents, CERTIFICATE, order.certificate)


def _wallet(kernel: Kernel, new: WalletCertificate) -> Wallet:
    newest = {wallet.certificate.struct_hash: wallet for wallet in kernel.inventory}
    found = newest.get(new.previous) if new.previous != ZERO32 else None
    if found is None:
        want = "a wallet's newest certificate"
        raise Refused([Refusal(Rule.NOT_SUCCESSOR, previous=new.previous.hex(), want=want)])
    return found


def _check_safe(wallet: Wallet, new: WalletCertificate) -> Iterator[Refusal]:
    if new.safe != wallet.certificates[0].message.safe:
        want = wallet.certificates[0].message.safe[0].address
        yield Refusal(Rule.SCRIPT_MISMATCH, got=new.safe[0].address, want=want)


def _check_rotation(
    kernel: Kernel, wallet: Wallet, new: WalletCertificate, rotation: Signed[Rotation] | None, now: int
) -> Iterator[Refusal]:
    if not wallet.chain.is_evm:
        return
    if rotation is None:
        yield Refusal(Rule.SIGNATURE_MISSING, document="Rotation", wallet=wallet.name.hex())
        return
    wanted = Rotation(wallet.certificate.struct_hash, new.struct_hash)
    if rotation.message != wanted:
        got, want = f"{rotation.message.old.hex()} to {rotation.message.new.hex()}", wanted.new.hex()
        yield Refusal(Rule.NOT_SUCCESSOR, field="rotation", got=got, want=want)
    yield from kernel.roster.check_quorum(rotation, kernel.roster.version.thresholds.certificate, None, now)


def _nothing(_: WalletCertificate) -> Iterator[Refusal]:
    return iter(())


def _next(work: UnitOfWork, wallet: bytes) -> int:
    number = 0
    while work.documents.get(_kind(wallet), str(number)) is not None:
        number += 1
    return number


def _read(row: object, number: int) -> Order:
    if not isinstance(row, dict) or set(row) != {"certificate", "rotation"}:
        raise InvalidInput("rotation order", Rule.ROW_DAMAGED, type(row).__name__, "certificate and rotation")
    rotation = None if row["rotation"] is None else Signed.from_json(Rotation, row["rotation"])
    return Order(number, Signed.from_json(WalletCertificate, row["certificate"]), rotation)


def _kind(wallet: bytes) -> str:
    return f"rotation order:{wallet.hex()}"


def _closed(wallet: bytes) -> str:
    return f"rotation order closed:{wallet.hex()}"
