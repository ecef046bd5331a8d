# SPDX-License-Identifier: AGPL-3.0-or-later
"""One deposit and one withdrawal of one customer, as the backend, treasury and a stranger who pays see them.

Everything goes over the API, and is asked again whenever nobody answers. What a crash does to the parts is theirs to mend: nothing
here knows what was killed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from eth_account import Account

from custody.attestor import RemoteAttestor
from custody.chains.evm.client import EvmClient
from custody.chains.evm.transactions import send
from custody.flows import sweep_records
from custody.flows.tidying import EVERY
from custody.parts import attestor
from custody.rules.certificates import Enrolment
from custody.rules.errors import Unavailable
from custody.rules.facts import Destination, Purpose
from custody.rules.intents import Proposal
from custody.rules.ledger import Account as LedgerAccount
from custody.rules.ledger import AccountKind
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain
from devnet.birth import BITCOIN, EVM
from devnet.contracts import mint, transfer
from devnet.prices import put_prices, told_time
from devnet.scenes.backend import Office
from devnet.scenes.stage import Stage
from devnet.treasury import DAY

T = TypeVar("T")

PATIENCE: Final = 300.0
"""Seconds for one leg of a journey on a loaded machine, while parts are killed under it."""
_BETWEEN: Final = 0.1
_NOTICED: Final = 3.0
"""Seconds after which the API has asked for the time again: it keeps it for two."""
_MINES: Final = 0.7


@dataclass(frozen=True, slots=True)
class Journey:
    """What is paid in and what is taken out, in base units; whoever has to approve that."""

    name: str
    chain: Chain
    asset: str
    deposit: int
    withdrawal: int
    people: tuple[str, ...] = ()
    scheduled: bool = False
    """Whether the withdrawal waits until the schedule has swept the deposit address; else the payout may sweep it."""


SWEPT: Final = Journey("swept", EVM, "ETH", 4 * 10**18, 4 * 10**18, scheduled=True)
"""Swept by schedule first, then paid out of the wallet's own Safe, and by itself."""
ETHER: Final = Journey("ether", EVM, "ETH", 6 * 10**18, 6 * 10**18, ("ana", "cleo"))
"""All that came in goes out again, so that the wallet has to sweep the deposit address each time, which is deployed for that."""
TOKEN: Final = Journey("token", EVM, "USDX", 1_000 * 10**6, 1_000 * 10**6)
"""Little enough to go by itself."""
COIN: Final = Journey("bitcoin", BITCOIN, "BTC", 50_000_000, 30_000_000, ("ana", "cleo"))
"""One coin in, and change out of it."""
JOURNEYS: Final = (ETHER, TOKEN, COIN)
"""What goes on side by side in one run; alone, and with a wait in it, SWEPT is a run of its own."""


@dataclass(frozen=True, slots=True)
class Traveller:
    """A customer who makes one journey, and the address of theirs that was enrolled a day ago."""

    journey: Journey
    customer: str
    destination: str

    @property
    def reference(self) -> str:
        """Of the one withdrawal; the Idempotency-Key too."""
        return f"out-{self.customer}"


class NotCarried(AssertionError):
    """A journey that did not end in time: where it stood and what it waited for."""


@dataclass
class Carrier:
    """Carries travellers through a world. `look` is called at every look at the clock: whoever kills parts can do it there."""

    stage: Stage
    office: Office = field(init=False)
    look: Callable[[], object] = lambda: None
    made: int = 0
    _mined: float = 0.0

    def __post_init__(self) -> None:
        self.office = Office(self.stage)

    @property
    def attestor(self) -> RemoteAttestor:
        """The attestor with its clock."""
        found = attestor(self.stage.deployment.settings)
        if not isinstance(found, RemoteAttestor):
            raise TypeError(type(found).__name__)
        return found

    def prepare(self, journeys: Sequence[Journey]) -> list[Traveller]:
        """A new customer for each, with an enrolled destination that is a day old."""
        backend, found = self.office.client("backend"), []
        for journey in journeys:
            self.made += 1
            traveller = Traveller(journey, f"{journey.name}-{self.made}", self._destination(journey.chain))
            self.insist(partial(backend.add_customer, traveller.customer), Rule.ALREADY_EXISTS)
            self.insist(partial(backend.enrol, self._enrolment(traveller)))
            found.append(traveller)
        self.insist(self.attestor.statement)
        self._pass_time(DAY + 3_600)
        return found

    def quote(self) -> None:
        """Both feeders say what the prices are now."""
        deployment, now = self.stage.deployment, self.insist(lambda: told_time(self.attestor))
        put_prices(deployment.store, self.stage.world.cast, deployment.roster, now)

    def carry(self, travellers: Sequence[Traveller]) -> None:
        """Deposits first, then withdrawals, all of them at once, to the end. Raises NotCarried."""
        backend, signer, people = (
            self.office.client("backend"),
            self.office.signer("backend"),
            self.stage.world.cast.people,
        )
        scheduled: list[str] = []
        for traveller in travellers:
            bound = self.insist(partial(backend.issue_address, traveller.customer, traveller.journey.chain.name))
            scheduled += [bound.message.address] * traveller.journey.scheduled
            self._pay(traveller, bound.message.address)
        self._until(lambda: all(map(self._is_credited, travellers)), travellers)
        if scheduled:
            self._pass_time(EVERY)
            self._until(lambda: not any(map(self._holds, scheduled)), travellers)
        made: dict[str, str] = {}
        for traveller in travellers:
            proposal, key = self._proposal(traveller), traveller.reference
            told = self.insist(partial(backend.propose, proposal, self.office.amount(proposal), signer, key))
            made[key] = str(told["id"])
        for traveller in travellers:
            for person in traveller.journey.people:
                self.insist(partial(backend.approve, made[traveller.reference], person, people[person]))
        self._until(lambda: all(map(self._is_done, travellers)), travellers)
        # A sweep may be booked after the payout behind it, where both became final in one block.
        self._until(self._is_tidied, travellers)

    def insist(self, ask: Callable[[], T], known: Rule | None = None) -> T:
        """Ask again until somebody answers; a request that is refused because the server has just started is no answer.

        `known` refuses what was done by an earlier one whose answer was lost; then there is no answer, and nobody needs it.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except Unavailable as error:
                told = str(error)
            except Refused as refused:
                rules = {refusal.rule for refusal in refused.refusals}
                if rules == {known}:
                    return None  # type: ignore[return-value]  # as told above
                if not rules <= {Rule.STALE, Rule.REPLAYED, Rule.TOO_EARLY}:
                    raise
                told = str(refused)
            if time.monotonic() > deadline:
                raise NotCarried(f"nobody answers: {told}")
            self.look()
            time.sleep(_BETWEEN)

    def _pass_time(self, seconds: int) -> None:
        """Move the statement's clock on, and let everybody notice: to an API whose time is an older one, prices are of the future."""
        self.insist(partial(self.attestor.advance, seconds))
        self.quote()
        time.sleep(_NOTICED)

    def transfer_of(self, traveller: Traveller) -> Transfer | None:
        """The traveller's withdrawal as it stands."""
        found = self.stage.deployment.store.read(
            lambda work: list(work.transfers.examine(0, 500, account=f"customer:{traveller.customer}"))
        )
        transfers = [transfer for _, transfer in found]
        if len(transfers) > 1 or not all(isinstance(transfer, Transfer) for transfer in transfers):
            raise AssertionError(f"{traveller.customer}: {transfers}")
        return next((transfer for transfer in transfers if isinstance(transfer, Transfer)), None)

    def _until(self, done: Callable[[], bool], travellers: Sequence[Traveller]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise NotCarried("; ".join(map(self._where, travellers)))
            self.look()
            if time.monotonic() - self._mined > _MINES:
                self.stage.mine(2)
                self._mined = time.monotonic()
            time.sleep(_BETWEEN)

    def _where(self, traveller: Traveller) -> str:
        found = self.transfer_of(traveller)
        credited = self._is_credited(traveller)
        told = "no withdrawal" if found is None else f"{found.status} {found.waiting_for}"
        return f"{traveller.customer}: credited {credited}, {told}"

    def _holds(self, address: str) -> bool:
        """Whether there is ether at a deposit address."""
        return int(str(self.stage.world.net.anvil.rpc("eth_getBalance", address, "latest")), 16) > 0

    def _is_tidied(self) -> bool:
        """Whether every sweep that began is final and booked."""
        deployment = self.stage.deployment
        found = [
            deployment.store.read(partial(sweep_records.newest, wallet=wallet.name))
            for wallet in deployment.inventory()
        ]
        return all(run is None or run.ended for run in found)

    def _is_credited(self, traveller: Traveller) -> bool:
        available = LedgerAccount(AccountKind.CUSTOMER_AVAILABLE, traveller.customer)
        asset = self.stage.deployment.bundle.assets.get(traveller.journey.asset)
        return self.stage.deployment.store.read(lambda work: work.journal.balance(available, asset)) > 0

    def _is_done(self, traveller: Traveller) -> bool:
        found = self.transfer_of(traveller)
        if found is not None and found.status.is_final and found.status is not Status.COMPLETED:
            raise NotCarried(self._where(traveller))
        return found is not None and found.status is Status.COMPLETED

    def _destination(self, chain: Chain) -> str:
        """An address that is nobody's to us."""
        if chain.is_evm:
            return str(Account.create().address)
        return str(self.stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))

    def _enrolment(self, traveller: Traveller) -> Signed[Enrolment]:
        owner, kind = f"customer:{traveller.customer}", Destination.CUSTOMER_WITHDRAWAL.value
        until = told_time(self.attestor) + 900 * DAY
        message = Enrolment(traveller.journey.chain.name, traveller.destination, owner, kind, bytes(32), until)
        return self.stage.world.cast.sign(self.stage.deployment.roster.domain, Signed(message, ()), ["hana"])

    def _proposal(self, traveller: Traveller) -> Proposal:
        journey = traveller.journey
        until = self.insist(lambda: told_time(self.attestor)) + 7 * DAY
        owner, purpose = f"customer:{traveller.customer}", Purpose.WITHDRAWAL.value
        return Proposal(
            traveller.reference,
            owner,
            journey.chain.name,
            journey.asset,
            journey.withdrawal,
            traveller.destination,
            purpose,
            until,
        )

    def _pay(self, traveller: Traveller, address: str) -> None:
        """A stranger pays, once."""
        world, journey = self.stage.world, traveller.journey
        if journey is COIN:
            world.net.bitcoind.pay(address, journey.deposit)
            world.net.bitcoind.mine(1)
            return
        stranger, node = self.stage.stranger(), EvmClient(world.net.anvil.url, EVM)
        if journey.asset == "ETH":
            send(node, stranger, address, value=journey.deposit)
        else:
            mint(node, world.deployer, world.contracts.usd, stranger.address, journey.deposit)
            transfer(node, stranger, world.contracts.usd, address, journey.deposit)
