# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everybody approved, and then the coins are gone: whoever is first at the door is not paid out of what others are owed."""

from dataclasses import replace
from typing import Final

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from custody.rules.amounts import Amount
from custody.rules.coverage import surplus
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Status, SubStatus, Transfer
from devnet import independent
from devnet.birth import EVM
from devnet.contracts import call_data
from devnet.scenes.attacks import Attacker
from devnet.scenes.deposits import DOLLAR
from devnet.scenes.desk import Desk
from devnet.scenes.handed import all_refuse, attest, next_anchor, request_of
from devnet.scenes.stage import Stage
from devnet.story import Story

WANTED: Final = 30_000 * DOLLAR
_SLOTS: Final = 16


def drained(stage: Stage, story: Story) -> None:
    """The hot Safe is drained but for enough to pay this very withdrawal; then an older statement is shown to seats again."""
    story.chapter("Refused: a withdrawal approved by people, and then the hot wallet is drained")
    desk, ether = Desk(stage), Account.create().address
    attacker = Attacker(desk)
    desk.enrol("bob", EVM, ether)
    desk.pass_a_day()
    wanted = desk.propose("uncovered-usdx", "bob", "USDX", WANTED, ether)
    for person in ("ana", "cleo"):
        desk.approve(wanted, person)
    approved = desk.now(wanted)
    story.claim(
        "ana and cleo approved it, and it would go out now", approved.status is Status.QUEUED, approved.waiting_for
    )
    older = attest(desk, wanted, next_anchor(desk, wanted).anchor)
    before, theft = attacker.positions(), Theft(stage)
    theft.drain(WANTED)
    story.tell(f"the Safe's keys are in a thief's hands: {Amount(theft.asset, theft.taken)} leave it on chain")
    _refused(desk, story, attacker, wanted, theft.taken)
    story.claim("nothing was signed: no seat's journal moved", attacker.positions() == before)
    theft.put_back()
    story.tell(
        "the devnet puts the coins back where they lay: in the token's storage, since a transfer would be a deposit"
    )
    desk.work(story, wanted)
    paid = independent.tokens(stage.world.net.anvil, stage.world.contracts.usd, [ether])
    done = desk.now(wanted).status is Status.COMPLETED and paid == WANTED
    story.claim("covered again, it is paid", done, f"{paid} {desk.now(wanted).waiting_for}")
    signed = {name for name, position in attacker.positions().items() if position > before[name]}
    _replayed(story, attacker, wanted, older, signed)


def _refused(desk: Desk, story: Story, attacker: Attacker, wanted: Transfer, taken: int) -> None:
    """Authorize, attestor and every seat, each by its own arithmetic."""
    desk.turn(story, quiet=True)
    blocked = desk.now(wanted)
    held = (blocked.status, blocked.sub_status) == (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE)
    told = f"{blocked.status} {blocked.waiting_for}"
    story.claim("refused by authorize, which gives the worker no permit", held and Rule.COVERAGE in told, told[:160])
    request = request_of(desk, wanted)
    row = next(row for row in request.statement.message.coverage if row.asset == "USDX")
    asset, short = desk.stage.deployment.bundle.assets.get("USDX"), row.in_ledger - row.on_chain
    told = f"reserves {Amount(asset, row.reserves)}, surplus {Amount(asset, surplus(row))}"
    story.claim("the attestor says what is missing, to the unit", short == taken and surplus(row) < 0, told)
    what = "handed to seats with that statement, though the Safe itself could pay it"
    all_refuse(story, what, Rule.COVERAGE, attacker.seats, request)


def _replayed(story: Story, attacker: Attacker, paid: Transfer, older: Signed[Statement], signed: set[str]) -> None:
    """The statement of before the theft, genuine and minutes old, in the place of the one that seats signed by."""
    story.chapter("Refused: a statement from before, shown to seats again")
    asked = attacker.asked(attacker.permit(paid).reservation.anchor)
    seats = {name: seat for name, seat in attacker.seats.items() if name in signed}
    told = f"statement {older.message.sequence} after {asked.statement.message.sequence}"
    again = {name: seat.sign(asked).signatures for name, seat in seats.items()}
    same = all(seat.sign(asked).signatures == again[name] for name, seat in seats.items())
    story.claim(
        "the very same request gets the very same signatures", same and len(signed) == 3, ", ".join(sorted(signed))
    )
    all_refuse(story, f"the same with {told}", Rule.SEQUENCE, seats, replace(asked, statement=older))


class Theft:
    """What somebody with all of a Safe's keys could do on chain: its tokens leave it, and Bulkhead is not asked."""

    def __init__(self, stage: Stage) -> None:
        self._net, self._token = stage.world.net.anvil, stage.world.contracts.usd
        self._stage = stage
        self._safe, self._thief = stage.deployment.hot_wallet(EVM).place, Account.create().address
        self.asset = stage.deployment.bundle.assets.get("USDX")
        self.taken = 0

    def drain(self, leave: int) -> None:
        """Transfer everything but `leave` base units, in a block of its own, for nothing: no ether may move with it."""
        self.taken = self._balance(self._safe) - leave
        if self.taken <= 0:
            raise AssertionError(f"the Safe has only {self.taken + leave}")
        base = self._net.rpc("eth_getBlockByNumber", "latest", False)  # noqa: FBT003  # JSON-RPC has no names
        fee = base["baseFeePerGas"] if isinstance(base, dict) else "0x0"
        self._net.rpc("anvil_impersonateAccount", self._safe)
        self._net.rpc("anvil_setNextBlockBaseFeePerGas", "0x0")
        data = "0x" + call_data("transfer(address,uint256)", self._thief, self.taken).hex()
        self._net.rpc("eth_sendTransaction", {"from": self._safe, "to": self._token, "data": data, "gasPrice": "0x0"})
        self._net.rpc("anvil_stopImpersonatingAccount", self._safe)
        self._net.rpc("anvil_setNextBlockBaseFeePerGas", fee)
        self._settle(leave)

    def put_back(self) -> None:
        """The tokens lie at the Safe again, without a transfer that would be seen as somebody's deposit."""
        units = self._balance(self._safe) + self.taken
        slot = self._slot(self._safe)
        self._write(slot, self._safe, units)
        self._write(slot, self._thief, 0)
        self._settle(units)

    def _settle(self, left: int) -> None:
        self._stage.mine()
        self._stage.watch()
        if self._balance(self._safe) != left:
            raise AssertionError(f"the Safe has {self._balance(self._safe)}, not {left}")

    def _balance(self, address: str) -> int:
        call = {"to": self._token, "data": "0x" + call_data("balanceOf(address)", address).hex()}
        return int(str(self._net.rpc("eth_call", call, "latest")), 16)

    def _slot(self, address: str) -> int:
        """Where the token keeps its balances: the first mapping that has this one."""
        for slot in range(_SLOTS):
            kept = self._net.rpc("eth_getStorageAt", self._token, _place(address, slot), "latest")
            if int(str(kept), 16) == self._balance(address):
                return slot
        raise AssertionError(f"no mapping of {self._token} has the balance of {address}")

    def _write(self, slot: int, address: str, units: int) -> None:
        self._net.rpc("anvil_setStorageAt", self._token, _place(address, slot), f"0x{units:064x}")


def _place(address: str, slot: int) -> str:
    """Where Solidity keeps a mapping's value: keccak256(key ‖ slot)."""
    return "0x" + keccak(encode(["address", "uint256"], [address, slot])).hex()
