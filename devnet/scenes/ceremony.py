# SPDX-License-Identifier: AGPL-3.0-or-later
"""What takes time and people: a withdrawal behind a time-lock, and hot refilled from cold by a ceremony.

Nothing of a ceremony is done for the people in it: files are written, signed and brought back by the very commands that they
type, and a cold seat, a process of its own with a vault of its own, is asked with nothing but a file.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

import coincurve
from eth_account import Account
from typer import Typer

from custody.auditing import audit
from custody.chains.addresses import ChainDeriver
from custody.commands.payout import app as payout
from custody.flows import payout_records as records
from custody.flows.inventory import GAP
from custody.flows.ports import Branch, UnitOfWork
from custody.flows.proposals import requirement_of
from custody.rules import words
from custody.rules.amounts import Amount
from custody.rules.facts import Purpose
from custody.rules.refusals import Rule
from custody.rules.seat_request import Request
from custody.rules.transfers import Status, SubStatus, Transfer
from custody.rules.wallets import Chain, Tier
from custody.vault.cli import app as seats
from devnet import independent
from devnet.birth import BITCOIN, EVM
from devnet.scenes.attacks import Attacker
from devnet.scenes.deposits import COIN, DOLLAR, ETHER
from devnet.scenes.desk import Desk
from devnet.scenes.handed import all_refuse, request_of, withheld
from devnet.scenes.stage import Stage
from devnet.story import Story

HOUR: Final = 3_600
NATIVE: Final = {EVM: "ETH", BITCOIN: "BTC"}
TO_COLD: Final = {EVM: 3 * ETHER, BITCOIN: COIN // 5}
FROM_COLD: Final = {EVM: 2 * ETHER, BITCOIN: COIN // 10}
FEES: Final = 500_000
"""Satoshi that the company adds to customers' coins: the network's fee for moving those between wallets is never the customers'."""
BACK: Final = GAP[False] - 1
"""Change index at which a Bitcoin wallet is paid by another of ours; its own change takes the lowest ones."""
SIGNERS: Final = ("cold-1", "cold-2", "cold-3")


def time_locked(stage: Stage, story: Story) -> None:
    """A withdrawal that three desks and an hour stand before; neither worker nor authorize nor a seat shortens either."""
    story.chapter("A withdrawal of 120,000 dollars waits for three desks, and for an hour")
    desk, ether = Desk(stage), Account.create().address
    attacker = Attacker(desk)
    desk.enrol("bob", EVM, ether)
    desk.pass_a_day()
    large = desk.propose("locked-usdx", "bob", "USDX", 120_000 * DOLLAR, ether)
    asked = requirement_of(large.decision)
    desks = {group for group, _ in asked.approvals} if asked is not None else set()
    held = desks == {"operations", "treasury", "risk"} and asked is not None and asked.delay == HOUR
    story.claim("policy asks for three desks and an hour", held, large.waiting_for)
    for person in ("ana", "cleo", "dan"):
        refused = desk.approve(large, person)
        story.claim(f"{person} approves", not refused, ", ".join(refused) or f"waits for {desk.now(large).waiting_for}")
    locked, until = desk.now(large), large.created_at + HOUR
    told = locked.sub_status is SubStatus.PENDING_TIME_LOCK and words.at(until) in locked.waiting_for
    story.claim("everybody has approved, and it says until when it waits", told, locked.sub_status)
    before = attacker.positions()
    desk.turn(story)
    request = request_of(desk, large)
    rules = withheld(desk, large, request.statement)
    story.claim("asked all the same: refused by authorize", rules == {str(Rule.DELAY)}, ", ".join(rules))
    all_refuse(story, "handed to seats all the same", Rule.DELAY, attacker.seats, request)
    story.claim(
        "nothing was signed: no seat's journal moved", attacker.positions() == before, desk.now(large).waiting_for
    )
    desk.pass_time(HOUR + 60)
    desk.work(story, large)
    paid = independent.tokens(stage.world.net.anvil, stage.world.contracts.usd, [ether])
    done = desk.now(large).status is Status.COMPLETED and paid == 120_000 * DOLLAR
    story.claim("after the hour it is paid, to the unit", done, f"{paid} {desk.now(large).waiting_for}")


def to_cold(stage: Stage, story: Story) -> None:
    """Coins beyond the day's need leave hot for cold on both chains; it is bo, an operator, who asks."""
    story.chapter("Cold: what hot does not need goes there, approved by people")
    desk = Desk(stage)
    _surplus(desk, story)
    start = _held(stage)
    sent = _moves(desk, "to-cold", Tier.CUSTOMER_COLD, TO_COLD)
    _approved(desk, story, sent, ("ana", "dan"))
    desk.work(story, *sent)
    _claim_moved(desk, story, sent, start, Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD)


def refill(stage: Stage, story: Story) -> None:
    """Some of it comes back by one ceremony for both chains, signed by seats that are offline before it and after it."""
    story.chapter("Hot is refilled from cold: by people, an hour, and a ceremony")
    desk, start = Desk(stage), _held(stage)
    wanted = _moves(desk, "refill", Tier.CUSTOMER_HOT, FROM_COLD)
    _approved(desk, story, wanted, ("ana", "cleo", "dan"))
    desk.pass_time(HOUR + 60)
    desk.turn(story, quiet=True)
    for transfer in wanted:
        waiting, reference = desk.now(transfer), transfer.proposal.message.reference
        silent = waiting.status is Status.PENDING_SIGNATURE and all(
            f"{s} is silent" in waiting.waiting_for for s in SIGNERS
        )
        told = f"{waiting.status}: {waiting.waiting_for.partition(';')[0]}"
        story.claim(f"{reference} is built and waits: no cold seat answers", silent, told)
    _ceremony(desk, story, wanted)
    desk.work(story, *wanted)
    _claim_moved(desk, story, wanted, start, Tier.CUSTOMER_COLD, Tier.CUSTOMER_HOT)
    findings = audit(stage.deployment)
    story.claim(
        "ledger verify holds: each move confirmed at its chain", not findings, "; ".join(map(str, findings))[:200]
    )


def _surplus(desk: Desk, story: Story) -> None:
    """The company pays for moving customers' bitcoin, out of its own, before any of it is moved."""
    stage = desk.stage
    own = next(w for w in stage.deployment.inventory().on(BITCOIN) if w.tier is Tier.OPERATIONAL)
    stage.world.net.bitcoind.pay(ChainDeriver().derive(own.certificate, Branch.RECEIVE, 0).text, COIN // 10)
    stage.mine()
    stage.watch()
    to = _place(stage, Tier.CUSTOMER_HOT, BITCOIN)
    adds = desk.ask("surplus-btc", "company", "BTC", FEES, to, "gil", Purpose.MAKE_WHOLE)
    _approved(desk, story, [adds], ("dan", "cleo"))
    desk.work(story, adds)
    ended = desk.now(adds)
    story.claim("the company adds what moving bitcoin will cost", ended.status is Status.COMPLETED, ended.waiting_for)


def _moves(desk: Desk, reference: str, to: Tier, units: dict[Chain, int]) -> list[Transfer]:
    """One proposal of bo's, who is an operator, for each chain."""
    found = []
    for chain, amount in units.items():
        name, place = f"{reference}-{NATIVE[chain].lower()}", _place(desk.stage, to, chain)
        found.append(desk.ask(name, "company", NATIVE[chain], amount, place, "bo", Purpose.REBALANCE))
    return found


def _place(stage: Stage, tier: Tier, chain: Chain) -> str:
    """The Safe of a tier, or a change address of its script: what arrives there is nobody's deposit."""
    wallet = next(w for w in stage.deployment.inventory().on(chain) if w.tier is tier)
    return wallet.place if chain.is_evm else ChainDeriver().derive(wallet.certificate, Branch.CHANGE, BACK).text


def _approved(desk: Desk, story: Story, transfers: Sequence[Transfer], people: Sequence[str]) -> None:
    for transfer in transfers:
        reference, asked = transfer.proposal.message.reference, transfer.waiting_for
        refused = set().union(*(desk.approve(transfer, person) for person in people))
        held = not refused and desk.now(transfer).status is Status.QUEUED
        story.claim(f"{', '.join(people)} approve {reference}", held, ", ".join(refused) or f"asked for: {asked}")


# on chain


def _held(stage: Stage) -> dict[tuple[Tier, Chain], int]:
    """What each customer tier finally has of each chain's own coin, by the nodes themselves."""
    net, found = stage.world.net, dict[tuple[Tier, Chain], int]()
    for wallet in stage.deployment.inventory():
        if wallet.tier.is_customer and wallet.chain == EVM:
            found[wallet.tier, EVM] = independent.ether(net.anvil, [address.text for address in wallet.addresses])
        elif wallet.tier.is_customer:
            found[wallet.tier, BITCOIN] = independent.bitcoin(net.bitcoind, [wallet.place], 3)
    return found


def _claim_moved(
    desk: Desk,
    story: Story,
    transfers: Sequence[Transfer],
    start: dict[tuple[Tier, Chain], int],
    source: Tier,
    to: Tier,
) -> None:
    end = _held(desk.stage)
    for transfer in transfers:
        chain, units = Chain(transfer.intent.chain), transfer.intent.amount
        asset, fee = desk.stage.deployment.bundle.assets.get(NATIVE[chain]), _fee(desk, transfer)
        down, up = start[source, chain] - end[source, chain], end[to, chain] - start[to, chain]
        told = f"{source} −{Amount(asset, max(down, 0)).decimal}, {to} +{Amount(asset, max(up, 0)).decimal}"
        fees = f", and the fee of {fee} satoshi" if fee else ""
        done = desk.now(transfer).status is Status.COMPLETED and (down, up) == (units + fee, units)
        name = transfer.proposal.message.reference
        story.claim(f"{name}: completed, and the chain says exactly that{fees}", done, f"{asset.symbol}: {told}")


def _fee(desk: Desk, transfer: Transfer) -> int:
    def read(work: UnitOfWork) -> int:
        permit = work.transfers.permit_of(transfer.digest)
        known = () if permit is None else records.variants(work, permit.reservation.anchor)
        return known[-1].unsigned.fee if known else 0

    return desk.stage.deployment.store.read(read)


# by hand


def _ceremony(desk: Desk, story: Story, transfers: Sequence[Transfer]) -> None:
    """Export, carry, start and unseal the cold seats, sign, stop them, carry back, import."""
    stage = desk.stage
    folder = stage.world.net.home / "carried"
    folder.mkdir(exist_ok=True)
    at = ("--home", str(stage.world.net.home))
    files = {t.intent.id: folder / f"{t.proposal.message.reference}.json" for t in transfers}
    for name, file in files.items():
        _type(story, folder, payout, "export", name, file, hidden=at)
    asked = sorted(files.values(), key=lambda file: _request(file).statement.message.sequence)
    for file in asked:
        found, size = list(_secrets(stage, file)), f"{file.stat().st_size} bytes"
        story.claim(f"{file.name} has what seats are asked, and no key in it", not found, size)
    story.claim("the cold seats are stopped before", not _running(stage), _running(stage) or "stopped")
    with stage.world.services.ceremony(SIGNERS):
        story.tell(f"{', '.join(SIGNERS)} are up and unsealed; cold-4 is left where it lies, three of four are enough")
        for seat in SIGNERS:  # each signs in the order of the statements: it takes no number below one that it has seen
            at_seat = _where(stage, seat)
            for file in asked:
                _type(story, folder, seats, "sign", seat, file, "--out", _signed(file, seat), *at_seat)
    story.claim("and stopped after", not _running(stage), _running(stage) or "stopped")
    for name, file in files.items():
        _type(story, folder, payout, "import", name, *(_signed(file, seat) for seat in SIGNERS), hidden=at)


def _where(stage: Stage, seat: str) -> tuple[str | Path, ...]:
    """How a seat's own operator names it: its engine by the clients' AppRole, or its process by the socket."""
    part = stage.deployment.settings.seats[seat]
    return ("--approle", Path(part.approle)) if part.mount else ("--socket", Path(part.socket))


def _signed(file: Path, seat: str) -> Path:
    return file.with_name(f"{file.stem}.{seat}.json")


def _type(story: Story, folder: Path, app: Typer, *typed: str | Path, hidden: Sequence[str] = ()) -> None:
    """Run what a person in the folder of the files types; `hidden` is what their environment says. Raises what it raises."""
    told = [os.path.relpath(word, folder) if isinstance(word, Path) else word for word in typed]
    story.tell(f"$ bulkhead {'seat' if app is seats else 'payout'} {' '.join(told)}")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        app(args=[*map(str, typed), *hidden], standalone_mode=False)


def _running(stage: Stage) -> list[str]:
    parts = (*stage.world.net.cold.values(), *stage.world.services.cold.values())
    return sorted({part.name for part in parts if part.pid is not None})


def _request(file: Path) -> Request:
    """The file read as strictly as a seat reads it: a field more, or one less, is refused."""
    return Request.from_json(json.loads(file.read_text(encoding="ascii")))


def _secrets(stage: Stage, file: Path) -> Iterator[str]:
    """Whatever in a file would let somebody sign: a wallet key of any seat, a login or an unseal share of a cold one."""
    text = file.read_text(encoding="ascii")
    if (again := _request(file).to_json()) != json.loads(text):
        yield f"more than a request: {again}"
    for server in stage.world.net.cold.values():
        kept = json.loads(server.approle_file.read_text()), json.loads(server.unseal_file.read_text())
        yield from (secret for secret in (kept[0]["secret_id"], *kept[1]["shares"]) if secret in text)
    yield from (word for word in ("xprv", "tprv") if word in text)
    public = {s.key.public for wallet in stage.deployment.inventory() for s in wallet.certificate.seats if s.key.public}
    for word in _words(json.loads(text)):
        if coincurve.PrivateKey(word).public_key.format(compressed=True) in public:
            yield word.hex()


def _words(body: object) -> Iterator[bytes]:
    """Every 32 bytes in a row in the hex text of a JSON body that could be a key of the curve."""
    if isinstance(body, dict):
        for value in body.values():
            yield from _words(value)
    elif isinstance(body, list):
        for value in body:
            yield from _words(value)
    elif isinstance(body, str) and body.startswith("0x") and len(body) % 2 == 0:
        raw = bytes.fromhex(body[2:])
        yield from (w for i in range(len(raw) - 31) if 0 < int.from_bytes(w := raw[i : i + 32]) < _CURVE)


_CURVE: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order of secp256k1 (SEC 2)."""
