# SPDX-License-Identifier: AGPL-3.0-or-later
"""How many payloads and signatures a second one seat gives when it is asked in batches: in the engine, and in a process of its own.

Beside both, in the same rounds, bare coincurve signing as many digests. A payload is a withdrawal that the seat never saw, approved
by two people, with its own statement; a Bitcoin payload has four inputs. Everything counts that stands between asking and having
the signatures: HTTP or socket, OpenBao, decoding, deciding, the journal on disk, signing. `python -m tests.bench engine`.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import coincurve

from custody.chains.bitcoin.scripts import script_pubkey
from custody.rules.payments import SeatSignatures
from custody.rules.payouts import PsbtPayload
from custody.rules.seat_request import Request
from custody.rules.wallets import Address, Chain, Tier
from custody.vault.keyring import RemoteSeat
from custody.vault.openbao import OpenBaoClient
from devnet.grants import Kind
from devnet.openbao import OpenBao
from tests.fakes import trust
from tests.fakes.engine import DrawerClient, DrawerVault, drawers_server
from tests.fakes.seat import BITCOIN, EVM, Drawer
from tests.fakes.seated import Seated, by_wire, seated

T = TypeVar("T")

MANY: Final = 50
ROUNDS: Final = 5
INPUTS: Final = 4
NAMES: Final = {EVM: "EVM", BITCOIN: f"Bitcoin, {INPUTS} inputs"}
_NUMBERS: Final = itertools.count()


@dataclass
class Figures:
    """One kind of host and chain: a payload's seconds in each round."""

    name: str
    payload: list[float]
    signatures: int

    def __str__(self) -> str:
        each = median(self.payload)
        spread = f"{1 / max(self.payload):.0f}-{1 / min(self.payload):.0f}"
        return (
            f"{self.name}: {1 / each:.0f} payloads/s ({spread}), {self.signatures / each:.0f} signatures/s, "
            f"{MANY} in a request, {ROUNDS} rounds"
        )


def requests_of(house: Seated, chain: Chain) -> list[Request]:
    """Payloads that nobody has seen, each on an anchor of its own, in the order of their statements."""
    made = []
    for number in itertools.islice(_NUMBERS, MANY):
        amount = (10**15 if chain == EVM else 10**7) + number
        fields: dict[str, Any] = {"both": {"amount": amount}, "proposal": {"reference": f"bench-{number}"}}
        if chain == EVM:
            fields |= {"nonce": 7 + number, "safe": {"nonce": 7 + number}}
        else:
            fields["payload"] = partial(_coins, house, amount, number)
        made.append(house.ask(chain=chain, **fields))
    return made


def _coins(house: Seated, amount: int, number: int, _payload: object) -> PsbtPayload:
    certificate = house.world.certificate(Tier.CUSTOMER_HOT, BITCOIN)
    payee = script_pubkey(Address(BITCOIN, trust.PAYEE[BITCOIN.name]))
    psbt = trust.psbt_of(certificate, [(amount, payee)], coins=INPUTS, units=10**8 + number)
    return PsbtPayload(BITCOIN.name, psbt.serialize())


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


@contextmanager
def in_engine(server: OpenBao, drawer: str) -> Iterator[tuple[Seated, RemoteSeat]]:
    """A born seat inside OpenBao."""
    client = DrawerClient(server, drawer)
    with seated({"hot-1": DrawerVault(client)}) as house:
        client.clock = house.clock
        yield house, RemoteSeat("hot-1", client)


@contextmanager
def in_process(server: OpenBao, drawer: str) -> Iterator[tuple[Seated, RemoteSeat]]:
    """A born seat behind its socket, with its documents in kv-v2."""
    vault = Drawer(OpenBaoClient.from_file(server.approle_file), drawer)
    with seated({"hot-1": vault}) as house, by_wire(house.hosts["hot-1"]) as seat:
        yield house, seat


def benches() -> Iterator[object]:
    """Lines to print; rounds of the three sides alternate."""
    with ExitStack() as stack:
        yield from _benches(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))))


def _benches(stack: ExitStack, folder: Path) -> Iterator[object]:
    hosted = OpenBao("hot-1", folder / "hosted")
    stack.callback(hosted.stop)
    hosted.open(Kind.SEAT)
    engines = stack.enter_context(drawers_server(folder / "engine"))
    key = coincurve.PrivateKey(b"\x11" * 32)
    for chain, name in NAMES.items():
        sides: dict[str, Figures] = {}
        for turn in range(ROUNDS):
            for kind, host, server in (("the engine", in_engine, engines), ("a process", in_process, hosted)):
                print(f"bench engine: {kind}, {name}, round {turn + 1} of {ROUNDS}", file=sys.stderr)
                with host(server, f"{name[:3]}-{turn}") as (house, seat):
                    asked = requests_of(house, chain)
                    seconds, made = timed(partial(seat.sign_many, asked))
                wrong = [each for each in made if not isinstance(each, SeatSignatures)]
                if wrong:
                    raise wrong[0]
                count = sum(len(each.signatures) for each in made if isinstance(each, SeatSignatures)) // MANY
                sides.setdefault(kind, Figures(f"seat in {kind}, {name}", [], count)).payload.append(seconds / MANY)
            seconds, _ = timed(lambda: [key.sign_recoverable(bytes([i % 256]) * 32, hasher=None) for i in range(1000)])
            bare = Figures("coincurve alone", [], 1)
            sides.setdefault("bare", bare).payload.append(seconds / 1000)
        yield from sides.values()
