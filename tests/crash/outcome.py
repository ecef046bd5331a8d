# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a run came to, so that two can be compared: what our wallets did on both chains, and what the books say of it.

Read from the nodes and the journal, not from what any part says of itself. Ids, hashes, heights and times are left out; every other
number is compared to the base unit.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

from eth_utils.crypto import keccak

from custody.flows.ports import UnitOfWork
from custody.rules.attested import verify_signature
from custody.rules.coverage import surplus
from custody.rules.ledger import AccountKind, JournalEntry
from custody.rules.origins import Executed
from custody.rules.refusals import Refused
from devnet.birth import EVM
from devnet.scenes.stage import Stage
from tests.crash.journeys import Carrier, Traveller

_TRANSFER: Final = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
_EXECUTED: Final = "0x" + keccak(text="ExecutionSuccess(bytes32,uint256)").hex()
"""What Safe 1.4.1 says of each call that it made for its owners."""
_SATOSHI: Final = 10**8

Lines = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where both chains and the journal stood before a run."""

    evm: int
    bitcoin: int
    journal: int
    balances: Mapping[tuple[str, str], int]
    ether: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """What happened since a mark, by line: `what: how often or how many base units`."""

    chain: Lines
    ledger: Lines
    faults: tuple[str, ...] = field(default=())

    def differences(self, twin: "Outcome") -> list[str]:
        """What is another thing than in the twin's run, and what must not be in any."""
        return [
            *self.faults,
            *(f"chain: {line}" for line in _compare(self.chain, twin.chain)),
            *(f"ledger: {line}" for line in _compare(self.ledger, twin.ledger)),
        ]


def _compare(mine: Lines, theirs: Lines) -> Iterator[str]:
    for line in sorted(mine.keys() | theirs.keys()):
        if mine.get(line) != theirs.get(line):
            yield f"{line}: {mine.get(line)}, the twin's {theirs.get(line)}"


class Auditor:
    """Marks where things stand, and says what became of it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def mark(self) -> Mark:
        """Where things stand now."""
        net, store = self._stage.world.net, self._stage.deployment.store
        head, balances = store.read(lambda work: (work.journal.head(), list(work.journal.balances())))
        known = {(str(account), asset.symbol): units for account, asset, units in balances}
        safes = {address: self._ether(address) for address in self._safes()}
        return Mark(net.anvil.height, net.bitcoind.height, head.position, known, safes)

    def outcome(self, since: Mark, travellers: Sequence[Traveller], carrier: Carrier) -> Outcome:
        """What happened since, of which these travellers were to be the whole cause."""
        names = self._names(travellers)
        ether = ((f"ether of {names[a]}", self._ether(a) - since.ether.get(a, 0)) for a in self._safes(travellers))
        chain = _sum((*self._evm(since, names), *ether, *self._bitcoin(since, names)))
        ledger = _sum((*self._entries(since, names), *self._balances(since, names)))
        return Outcome(chain, ledger, tuple(self._faults(travellers, carrier)))

    # whose an address or an account is

    def _safes(self, travellers: Sequence[Traveller] = ()) -> list[str]:
        """The certified Safes, the deposit Safes of these travellers, and where they are paid. Lower case."""
        places = [wallet.place.lower() for wallet in self._stage.deployment.inventory().on(EVM)]
        mine = [t for t in travellers if t.journey.chain == EVM]
        return [*places, *self._deposits(mine), *(t.destination.lower() for t in mine)]

    def _deposits(self, travellers: Sequence[Traveller]) -> dict[str, str]:
        role = {t.customer: t.journey.name for t in travellers}
        bound = self._stage.deployment.store.read(lambda work: list(work.customers.addresses()))
        return {
            b.message.address.lower(): f"{role[b.message.customer]}'s deposit address"
            for b in bound
            if b.message.customer in role
        }

    def _names(self, travellers: Sequence[Traveller]) -> Mapping[str, str]:
        """Addresses, wallets and customers by what they stand for in every run."""
        found = self._deposits(travellers)
        for wallet in self._stage.deployment.inventory():
            label = f"{wallet.certificate.label} on {'EVM' if wallet.chain.is_evm else 'Bitcoin'}"
            found |= {wallet.name.hex(): label, wallet.place.lower(): label}
        for t in travellers:
            found |= {
                t.destination.lower(): f"{t.journey.name}'s destination",
                t.customer: f"{t.journey.name}'s customer",
            }
        return found

    # chains

    def _ether(self, address: str) -> int:
        return int(str(self._stage.world.net.anvil.rpc("eth_getBalance", address, "latest")), 16)

    def _evm(self, since: Mark, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """Every token that moved from or to one of our Safes, and every sweep out of a deposit Safe.

        How many payouts a wallet's Safe made is the batch's and the sweeping schedule's affair: a crash gives two withdrawals time
        to go out in one payout or in two. What each of them did is counted, and the books count which intents were paid.
        """
        net = self._stage.world.net
        ours = {
            b.message.address.lower()
            for b in self._stage.deployment.store.read(lambda w: list(w.customers.addresses(EVM)))
        }
        places = {wallet.place.lower() for wallet in self._stage.deployment.inventory().on(EVM)}
        ours |= places
        logs = net.anvil.rpc("eth_getLogs", {"fromBlock": hex(since.evm + 1), "toBlock": "latest"})
        totals: Counter[str] = Counter()
        for log in logs if isinstance(logs, list) else []:
            at, topics = log["address"].lower(), log["topics"]
            if topics[0] == _EXECUTED and at in ours - places:
                totals[f"calls of {names.get(at, at)}"] += 1
            elif topics[0] == _TRANSFER and len(topics) == 3:
                source, target = ("0x" + topic[-40:] for topic in topics[1:])
                if {source, target} & ours:
                    totals[f"token from {names.get(source, 'a stranger')} to {names.get(target, target)}"] += int(
                        log["data"], 16
                    )
        yield from totals.items()

    def _bitcoin(self, since: Mark, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """Every transaction that spends a coin of ours, by where it pays; on this network every P2WSH output is ours."""
        net = self._stage.world.net
        totals: Counter[str] = Counter()
        for height in range(since.bitcoin + 1, net.bitcoind.height + 1):
            block: Any = net.bitcoind.rpc("getblock", net.bitcoind.rpc("getblockhash", height), 3)
            for transaction in block["tx"][1:]:
                spent = [i["prevout"] for i in transaction["vin"]]
                ours = [p for p in spent if p["scriptPubKey"]["type"] == "witness_v0_scripthash"]
                if ours:
                    totals["payouts of customer_hot on Bitcoin"] += 1
                    totals["coins spent"] += len(ours)
                    for out in transaction["vout"]:
                        script = out["scriptPubKey"]
                        change = script["type"] == "witness_v0_scripthash"
                        where = "change" if change else names.get(script["address"].lower(), script["address"])
                        totals[f"satoshi to {where}"] += _satoshi(out["value"])
        yield from totals.items()

    # the books

    def _entries(self, since: Mark, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """Kinds of entries with their postings. What one payout settles or two is the batch's affair: their postings are added up."""
        for recorded in self._recorded(since.journal):
            kind = type(recorded.entry.origin).__name__
            if isinstance(origin := recorded.entry.origin, Executed):
                yield f"intents {'voided' if origin.void else 'paid'} on {origin.chain}", len(origin.intents)
            else:
                yield f"entries of kind {kind}", 1
            for posting in recorded.entry.postings:
                who = _role(str(posting.account), names)
                yield f"{kind}: {posting.side} {who} {posting.amount.asset.symbol}", posting.amount.units

    def _recorded(self, after: int) -> Iterator[JournalEntry]:
        while page := self._stage.deployment.store.read(partial(_page, after)):
            yield from page
            after = page[-1].position

    def _balances(self, since: Mark, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """By how much each account changed."""
        found = self._stage.deployment.store.read(lambda work: list(work.journal.balances()))
        now = {(str(account), asset.symbol): units for account, asset, units in found}
        for account, symbol in sorted(now.keys() | since.balances.keys()):
            change = now.get((account, symbol), 0) - since.balances.get((account, symbol), 0)
            if change:
                yield f"balance of {_role(account, names)} {symbol}", change

    def _faults(self, travellers: Sequence[Traveller], carrier: Carrier) -> Iterator[str]:
        """What no run may leave behind, whatever its twin did."""
        deployment = self._stage.deployment
        held = deployment.store.read(lambda work: list(work.journal.totals()))
        yield from (f"still held: {units} {a}" for kind, a, units in held if kind is AccountKind.CUSTOMER_HELD)
        open_ = deployment.store.read(lambda work: len(work.transfers.examine_permitted()))
        if open_:
            yield f"{open_} permits still open"
        pool: Any = self._stage.world.net.bitcoind.rpc("getrawmempool")
        yield from (f"still in the pool: {txid}" for txid in pool)
        try:
            statement = carrier.insist(carrier.attestor.statement)
        except Refused as refused:
            yield f"the attestor refuses its statement: {refused}"
            return
        yield from (f"the statement's signature: {fault}" for fault in verify_signature(statement, deployment.roster))
        for row in statement.message.coverage:
            if surplus(row) < 0:
                yield f"coverage of {row.asset}: {surplus(row)}"
        for traveller in travellers:
            found = carrier.transfer_of(traveller)
            if found is None or found.waiting_for:
                yield f"{traveller.customer}: {found}"


def _page(after: int, work: UnitOfWork) -> Sequence[JournalEntry]:
    return work.journal.read(after)


def _role(account: str, names: Mapping[str, str]) -> str:
    kind, _, owner = account.partition(":")
    if kind == AccountKind.SUSPENSE:  # its owner is the chain event by which it came in, and names a block
        return kind
    return f"{kind}:{names.get(owner, owner)}" if owner else kind


def _satoshi(value: object) -> int:
    return int(Decimal(str(value)) * _SATOSHI)


def _sum(lines: Iterable[tuple[str, int]]) -> Lines:
    """Lines of the same words added up; what comes to nothing is left out."""
    totals: Counter[str] = Counter()
    for line, units in lines:
        totals[line] += units
    return {line: units for line, units in sorted(totals.items()) if units}
