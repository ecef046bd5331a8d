# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults of nodes: started again in the middle, without memory, behind, deaf, and lying to the worker or to the attestor."""

import itertools
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from custody.rules.transfers import Status
from devnet.birth import EVM
from devnet.processes import NodeFailed
from tests.faults import proxy
from tests.faults.proxy import Change, Proxy, only
from tests.faults.world import Hall, Payment, silent

_SENDS: Final = {"eth_sendRawTransaction": "0x", "sendrawtransaction": ""}


def sent(heard: Proxy, hall: Hall, payment: Payment) -> int:
    """How often the stored bytes of a payment went to the node; nothing else may have gone there for its anchor."""
    (envelope,) = hall.kept(payment)
    raws = [params[0] for method, params in heard.heard if method in _SENDS]
    mine = {prefix + envelope.raw.hex() for prefix in _SENDS.values()}
    assert set(raws) <= mine, "something else was sent"
    return len(raws)


def anvil_forgets_its_pool(hall: Hall) -> None:
    """Started again between broadcast and block, with nothing in its pool: the same stored bytes go out again, and are paid once."""
    anvil = hall.stage.world.net.anvil
    hall.sweep()
    anvil.rpc("evm_setAutomine", False)  # JSON-RPC
    payment = hall.ask(hall.ether)
    hall.until(lambda: hall.now(payment).status is Status.CONFIRMING, "sent", mine=False)
    anvil.stop()
    anvil.start()
    hall.finish(payment)
    assert sent(hall.nodes["worker-evm"], hall, payment) >= 2


def bitcoind_forgets_its_pool(hall: Hall) -> None:
    """The same on Bitcoin, where the node's own wallet is told to send nothing again: the worker does, the same bytes."""
    bitcoind = hall.stage.world.net.bitcoind
    payment = hall.ask(hall.bitcoin)
    hall.until(lambda: hall.now(payment).status is Status.CONFIRMING, "sent", mine=False)
    bitcoind.stop()
    folder = bitcoind.datadir / "regtest"
    (folder / "mempool.dat").unlink(missing_ok=True)
    (folder / "settings.json").write_text(json.dumps({"walletbroadcast": False}))
    bitcoind.start()
    (folder / "settings.json").unlink()
    hall.finish(payment)
    assert sent(hall.nodes["worker-bitcoin"], hall, payment) >= 2
    bitcoind.stop()  # and as everybody else needs it
    bitcoind.start()


def anvil_comes_back_older(hall: Hall) -> None:
    """Killed, and restored from a state without the block that paid: the chain grows past it, and the same bytes are paid once."""
    anvil = hall.stage.world.net.anvil
    anvil.stop()
    backup = anvil.state_file.with_suffix(".backup")
    shutil.copyfile(anvil.state_file, backup)
    anvil.start()
    payment = hall.ask(hall.ether)
    hall.until(lambda: hall.received(hall.ether) > hall.completed(hall.ether), "in a block", mine=False)
    os.kill(anvil.pid or 0, signal.SIGKILL)
    anvil.stop()
    shutil.copyfile(backup, anvil.state_file)
    anvil.start()
    assert hall.received(hall.ether) == hall.completed(hall.ether)
    hall.finish(payment)


def worker_behind(hall: Hall) -> None:
    """The worker's node stands still at an old head: what is final elsewhere is not booked, and nothing is sent in its stead."""
    node, anvil = hall.nodes["worker-evm"], hall.stage.world.net.anvil
    with node.playing(proxy.behind(anvil.height, anvil.height - 2)):
        payment = hall.ask(hall.ether)
        hall.until(lambda: hall.received(hall.ether) > hall.completed(hall.ether), "paid", mine=False)
        hall.stage.mine(4)
        hall.until(_steps(hall, 6), "the worker looked", mine=False)
        assert hall.now(payment).status in {Status.CONFIRMING, Status.BROADCASTING, Status.BROADCAST_UNKNOWN}
        assert len(hall.kept(payment)) == 1
    hall.finish(payment)


def bitcoin_worker_behind(hall: Hall) -> None:
    """The same on Bitcoin: its tip is replayed."""
    node, bitcoind = hall.nodes["worker-bitcoin"], hall.stage.world.net.bitcoind
    tip = str(bitcoind.rpc("getbestblockhash"))
    with node.playing(proxy.lying(only(["getbestblockhash"], lambda _: tip))):
        payment = hall.ask(hall.bitcoin)
        hall.until(lambda: hall.received(hall.bitcoin) > hall.completed(hall.bitcoin), "sent", mine=False)
        hall.stage.mine(8)
        hall.until(_steps(hall, 6), "the worker looked", mine=False)
        assert hall.now(payment).status is Status.CONFIRMING
    hall.finish(payment)


def attestor_behind(hall: Hall) -> None:
    """One of the attestor's two nodes is behind: it speaks of the block that both have, and of none below what it vouched for."""
    node, anvil = hall.nodes["attestor-evm-2"], hall.stage.world.net.anvil
    first = _final(hall)
    with node.playing(proxy.behind(first + 2, first)):
        hall.stage.mine(5)
        assert _final(hall) == first
    assert _final(hall) == anvil.height - 2 > first
    with node.playing(proxy.behind(first - 5, first - 7)):
        silent(hall.carrier.attestor.statement)
    _final(hall)


@dataclass(frozen=True)
class Lie:
    """What one of the attestor's nodes says falsely."""

    what: str
    node: str
    change: Change


def _flip(text: str) -> str:
    """Another last digit."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


LIES: Final = (
    Lie("more ether", "attestor-evm-2", only(["eth_getBalance"], lambda told: hex(int(told, 16) + 1))),
    Lie("less ether", "attestor-evm", only(["eth_getBalance"], lambda told: hex(max(0, int(told, 16) - 1)))),
    Lie("another block hash", "attestor-evm-2", only(["eth_getBlockByNumber"], lambda b: {**b, "hash": _flip(b["hash"])})),
    Lie("other code", "attestor-evm-2", only(["eth_getCode"], lambda told: _flip(told))),
    Lie("another answer of a contract", "attestor-evm", only(["eth_call"], lambda told: _flip(told))),
    Lie("another block hash of bitcoin", "attestor-bitcoin-2", only(["getblockhash"], _flip)),
    Lie("another tip of bitcoin", "attestor-bitcoin", only(["getbestblockhash"], _flip)),
    Lie("another header of bitcoin", "attestor-bitcoin-2", only(["getblockheader"], lambda h: {**h, "hash": _flip(h["hash"])})),
)  # fmt: skip


def attestor_lied_to(hall: Hall) -> None:
    """One of its two nodes tells it something else: it says nothing, whatever that is about, and speaks again afterwards."""
    for lie in LIES:
        with hall.nodes[lie.node].playing(proxy.lying(lie.change)):
            hall.stage.mine(1)
            said = silent(hall.carrier.attestor.statement)
            assert said, lie.what
        hall.speaks()


def nothing_signed_on_a_lie(hall: Hall) -> None:
    """While the attestor's nodes differ about a balance no seat is asked; the withdrawal goes on once they agree."""
    before, said = hall.positions(), len(hall.services.worker.log.read_text())
    with hall.nodes["attestor-evm-2"].playing(proxy.lying(LIES[0].change)):
        payment = hall.ask(hall.ether)
        hall.until(lambda: hall.said("disagree", said), "the worker is told", mine=False)
        hall.until(_steps(hall, 3), "the worker looked", mine=False)
        assert hall.positions() == before
        assert not hall.kept(payment)
    hall.finish(payment)


def attestor_lied_to_about_a_payout(hall: Hall) -> None:
    """A node that hides or changes the events of a payout that was booked: the attestor does not vouch for the entry, then does."""
    payment = hall.ask(hall.ether)
    hide: Change = only(["eth_getTransactionReceipt"], lambda receipt: {**receipt, "logs": []})
    change: Change = only(["eth_getTransactionReceipt"], lambda receipt: {**receipt, "logs": receipt["logs"][:-1]})
    with hall.nodes["attestor-evm-2"].playing(proxy.lying(hide)):
        hall.finish(payment)
        silent(hall.carrier.attestor.statement)
    with hall.nodes["attestor-evm"].playing(proxy.lying(change)):
        silent(hall.carrier.attestor.statement)
    hall.speaks()


def attestor_lied_to_about_a_block(hall: Hall) -> None:
    """A node that changes an amount inside a new block of bitcoin, once: silence while it lies, and no memory of the lie afterwards."""

    def richer(block: Any) -> Any:  # JSON
        for transaction in block.get("tx", []) if isinstance(block, dict) else []:
            for output in transaction.get("vout", []) if isinstance(transaction, dict) else []:
                if output["value"] > 0:
                    output["value"] = round(output["value"] * 2, 8)
        return block

    with hall.nodes["attestor-bitcoin-2"].playing(proxy.lying(only(["getblock"], richer))):
        hall.finish(hall.ask(hall.bitcoin))
        hall.stage.mine(6)
        silent(hall.carrier.attestor.statement)
    hall.speaks()


def worker_lied_to(hall: Hall) -> None:
    """A receipt in another block, or at another height: the worker books nothing of it, and all of it once the node tells the truth."""
    elsewhere: list[Callable[[Any], Any]] = [
        lambda r: {**r, "blockHash": _flip(r["blockHash"])},
        lambda r: {**r, "blockHash": "0x"},
    ]
    payment = hall.ask(hall.ether)
    for change in elsewhere:
        with hall.nodes["worker-evm"].playing(proxy.lying(only(["eth_getTransactionReceipt"], change))):
            hall.until(lambda: hall.received(hall.ether) > hall.completed(hall.ether), "paid", mine=False)
            hall.stage.mine(4)
            hall.until(_steps(hall, 4), "the worker looked", mine=False)
            assert not hall.now(payment).status.is_final
    hall.finish(payment)


def foreign_chain(hall: Hall) -> None:
    """A worker whose node is of another chain does not begin: it says which one, and sends nothing."""
    worker, node = hall.services.worker, hall.nodes["worker-evm"]
    worker.stop()
    node.heard.clear()
    with node.playing(proxy.lying(only(["eth_chainId"], lambda _: hex(31339)))):
        with suppress(NodeFailed):  # it may have ended before or after it was seen to live
            worker.start()
        hall.until(lambda: "eip155:31339" in worker.log.read_text(), "it says so", mine=False)
        hall.until(lambda: worker.pid is None, "it ended", mine=False)
    assert not [method for method, _ in node.heard if method in _SENDS]
    worker.start()
    hall.finish(hall.ask(hall.ether))


def deaf_node(hall: Hall) -> None:
    """A node that takes calls and never answers holds up its own chain alone; afterwards what waited goes on."""
    over = threading.Event()
    node = hall.nodes["worker-evm"]
    node.trick = proxy.deaf(over)
    waiting, other = hall.ask(hall.ether), hall.ask(hall.bitcoin)
    hall.finish(other)
    assert not hall.now(waiting).status.is_final
    node.trick = proxy.honest
    over.set()
    hall.finish(waiting)


def deaf_attestor_node(hall: Hall) -> None:
    """One of the attestor's nodes never answers: no statement, told within seconds, and nothing signed."""
    over, before = threading.Event(), hall.positions()
    with hall.nodes["attestor-evm-2"].playing(proxy.deaf(over)):
        assert "attestor" in silent(hall.carrier.attestor.statement)
        payment = hall.ask(hall.ether)
        hall.until(_steps(hall, 2), "the worker looked", mine=False)
        assert hall.positions() == before
    over.set()
    hall.finish(payment)


def half_answering_node(hall: Hall) -> None:
    """Half answers, HTTP 500, cut and unanswered connections now and then, of both nodes: it costs time, never a second payment."""
    turn, lost = itertools.count(), proxy.lost(1_000)
    tricks = {7: proxy.half, 151: proxy.failing, 307: proxy.refused, 449: lost}

    def now_and_then(asked: proxy.Asked, forward: proxy.Forward) -> proxy.Answer:
        return tricks.get(next(turn) % 503, proxy.honest)(asked, forward)

    with hall.nodes["worker-evm"].playing(now_and_then), hall.nodes["worker-bitcoin"].playing(now_and_then):
        hall.finish(hall.ask(hall.ether), hall.ask(hall.bitcoin))


def _steps(hall: Hall, count: int) -> Callable[[], bool]:
    """Whether the worker asked the attestor for the time so many times more: it does once a step."""
    heard = hall.nodes["worker-bitcoin"].heard + hall.nodes["worker-evm"].heard
    first = len(heard)

    def looked() -> bool:
        return len(hall.nodes["worker-bitcoin"].heard) + len(hall.nodes["worker-evm"].heard) >= first + 8 * count

    return looked


def _final(hall: Hall) -> int:
    """The EVM height of a new statement."""
    return next(row.height for row in hall.speaks().heights if row.chain == EVM.name)
