# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the node knows that a payout needs: coins of a watched wallet, their transactions, fee rates, and fates."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from custody.chains.bitcoin.coins import Coin
from custody.chains.bitcoin.psbts import read_outputs, transaction_id
from custody.chains.bitcoin.rpc import (
    NOT_FOUND,
    WALLET_NOT_FOUND,
    BitcoinRpc,
    Json,
    RpcError,
    as_hash,
    as_int,
    as_list,
    as_object,
    as_text,
    satoshi,
)
from custody.chains.bitcoin.scripts import CHANGE, derive_address, script_pubkey
from custody.chains.bitcoin.watching import branch_descriptor, watch_only
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payments import Envelope, Followed, Mined, Outcome, Pending, Replaced, Unknown
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.typed import ZERO32

REGTEST_RATE: Final = 2
"""Satoshi per virtual byte where no fee was ever paid: a regtest node has no estimate, and its coins no value."""
_BLOCKS: Final = 6
"""Within how many blocks a payout should be mined, for the node's estimate."""
_EVERY_AGE: Final = 9_999_999
_PLACE: Final = re.compile(r"/([0-9]{1,10})/([0-9]{1,10})\]")
_OUTPOINT: Final = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,9})")


class WatchedWallet:
    """One certificate's watch-only wallet on the node; made there at the first use."""

    def __init__(self, rpc: BitcoinRpc, certificate: WalletCertificate) -> None:
        # a rotation keeps the label, and a node's wallet holds one descriptor
        after = "" if certificate.previous == ZERO32 else f"-{certificate.struct_hash.hex()[:16]}"
        self._rpc, self._certificate = rpc, certificate
        self._name = f"bulkhead-{certificate.label}{after}"
        watch_only(rpc, self._name, certificate)

    def coins(self, confirmations: int) -> tuple[Coin, ...]:
        """Every coin with so many confirmations that no transaction known to the node spends."""
        no_addresses: list[Json] = []
        answer = self._call("listunspent", confirmations, _EVERY_AGE, no_addresses)
        return tuple(self._coin(as_object(item, "listunspent")) for item in as_list(answer, "listunspent"))

    def coin(self, outpoint: str, confirmations: int) -> tuple[Coin, bytes]:
        """A coin that no block spends yet, and its raw previous transaction. Raises Refused(reserved_coin_cannot_be_spent)."""
        txid, vout = read_outpoint(outpoint)
        told = unspent(self._rpc, txid, vout)
        if told is None or as_int(told.get("confirmations"), "confirmations") < confirmations:
            got = "spent" if told is None else "too few confirmations"
            raise Refused([Refusal(Rule.COIN_GONE, outpoint=outpoint, got=got, want=f"{confirmations} confirmations")])
        raw = self._transaction(txid)
        units, script = read_outputs(raw, vout)
        address = as_text(as_object(told.get("scriptPubKey"), "scriptPubKey").get("address"), "address")
        info = as_object(self._call("getaddressinfo", address), "getaddressinfo")
        branch, index = self._place(as_text(info.get("desc"), "desc"), script)
        return Coin(outpoint, units, branch, index), raw

    def consumed(self, outpoint: str) -> bool:
        """Whether a block spends a coin; one whose own transaction a reorg took out of the chain is not consumed."""
        txid, vout = read_outpoint(outpoint)
        if unspent(self._rpc, txid, vout) is not None:
            return False
        told = as_object(self._call("gettransaction", txid.hex()), "gettransaction")
        return as_int(told.get("confirmations"), "confirmations") > 0

    def next_change(self, last: int, anchor: str) -> int:
        """The lowest change index that the node has seen no use of; where all up to `last` were used, one of them again.

        Which one follows from the anchor alone, so that reuse is spread and every variant says the same.
        """
        txid, vout = read_outpoint(anchor)
        answer = as_object(self._call("listdescriptors"), "listdescriptors")
        wanted = branch_descriptor(self._certificate, CHANGE)
        for item in as_list(answer.get("descriptors"), "listdescriptors"):
            row = as_object(item, "listdescriptors")
            if row.get("desc") == wanted:
                unused = as_int(row.get("next_index"), "next_index")
                return unused if unused <= last else (int.from_bytes(txid) + vout) % (last + 1)
        raise Unavailable("bitcoind", f"its wallet {self._name} does not watch the change branch")

    def fate(self, envelope: Envelope) -> Followed:
        """What the wallet knows of one transaction; `Replaced` where another one that is mined conflicts with it."""
        try:
            told = as_object(self._call("gettransaction", envelope.transaction.hex()), "gettransaction")
        except RpcError as error:
            if error.code == NOT_FOUND:
                return Unknown()
            raise
        depth = as_int(told.get("confirmations"), "confirmations")
        if depth > 0:
            return self._mined(envelope, told)
        if depth < 0:
            others = [
                as_hash(other, "walletconflicts") for other in as_list(told.get("walletconflicts"), "walletconflicts")
            ]
            return Replaced(next((other for other in others if self._is_mined(other)), b""))
        return Pending(envelope.transaction) if in_mempool(self._rpc, envelope.transaction) else Unknown()

    def _mined(self, envelope: Envelope, told: dict[str, Json]) -> Mined:
        fee = told.get("fee")
        if not isinstance(fee, (int, Decimal)):
            raise Unavailable("bitcoind", f"it tells no fee of {envelope.transaction.hex()}")
        decoded = as_object(
            self._rpc.call("decoderawtransaction", as_text(told.get("hex"), "hex")), "decoderawtransaction"
        )
        return Mined(
            id=envelope.id,
            transaction=envelope.transaction,
            height=as_int(told.get("blockheight"), "blockheight"),
            block=as_hash(told.get("blockhash"), "blockhash"),
            outcome=Outcome.DONE,
            fee=satoshi(-fee, "fee"),
            size=as_int(decoded.get("vsize"), "vsize"),
        )

    def _is_mined(self, txid: bytes) -> bool:
        told = as_object(self._call("gettransaction", txid.hex()), "gettransaction")
        return as_int(told.get("confirmations"), "confirmations") > 0

    def _coin(self, row: dict[str, Json]) -> Coin:
        outpoint = f"{as_text(row.get('txid'), 'txid')}:{as_int(row.get('vout'), 'vout')}"
        read_outpoint(outpoint)
        script = bytes.fromhex(as_text(row.get("scriptPubKey"), "scriptPubKey"))
        return Coin(outpoint, satoshi(row.get("amount")), *self._place(as_text(row.get("desc"), "desc"), script))

    def _place(self, descriptor: str, script: bytes) -> tuple[int, int]:
        """Where the wallet derives a script: the node's word for it, derived again from the certificate."""
        places = {(int(branch), int(index)) for branch, index in _PLACE.findall(descriptor)}
        for branch, index in places:
            if len(places) == 1 and script_pubkey(derive_address(self._certificate, branch, index)) == script:
                return branch, index
        raise Unavailable("bitcoind", f"its wallet {self._name} has a coin that the certificate does not derive")

    def _transaction(self, txid: bytes) -> bytes:
        told = as_object(self._call("gettransaction", txid.hex()), "gettransaction")
        raw = bytes.fromhex(as_text(told.get("hex"), "hex"))
        if transaction_id(raw) != txid:
            raise Unavailable("bitcoind", f"it answered another transaction than {txid.hex()}")
        return raw

    def _call(self, method: str, *params: Json) -> Json:
        """Ask the node's wallet. A node that was started again has not loaded it, and one restored from elsewhere never had it."""
        try:
            return self._rpc.call(method, *params, wallet=self._name)
        except RpcError as error:
            if error.code != WALLET_NOT_FOUND:
                raise
        watch_only(self._rpc, self._name, self._certificate)
        return self._rpc.call(method, *params, wallet=self._name)


def fee_rate(rpc: BitcoinRpc, most: int) -> int:
    """Satoshi per virtual byte, rounded up: the node's estimate, at least what its mempool takes, at most the bound.

    Raises Unavailable where the node has no estimate (on regtest there never is one), Refused(fee_above_bounds) where even the
    mempool's minimum is above the bound.
    """
    floor = _per_vbyte(as_object(rpc.call("getmempoolinfo"), "getmempoolinfo").get("mempoolminfee"))
    told = as_object(rpc.call("estimatesmartfee", _BLOCKS), "estimatesmartfee").get("feerate")
    if told is None and rpc.chain.bitcoin_network != "regtest":
        raise Unavailable("bitcoind", "it has no estimate of fees")
    if floor > most:
        raise Refused([Refusal(Rule.FEE_TOO_HIGH, mempool=floor, most=most, unit="satoshi per virtual byte")])
    return max(floor, min(most, REGTEST_RATE if told is None else _per_vbyte(told)))


def replacing_rate(rpc: BitcoinRpc) -> int:
    """Satoshi per virtual byte, rounded up, by which a replacement has to pay more than what it replaces (BIP-125, rule 4)."""
    return _per_vbyte(as_object(rpc.call("getmempoolinfo"), "getmempoolinfo").get("incrementalrelayfee"))


def unspent(rpc: BitcoinRpc, txid: bytes, vout: int) -> dict[str, Json] | None:
    """An output that no block spends, whatever waits in the mempool; None for one that is gone or never was."""
    answer = rpc.call("gettxout", txid.hex(), vout, False)  # noqa: FBT003  # positional in the RPC
    return None if answer is None else as_object(answer, "gettxout")


def in_mempool(rpc: BitcoinRpc, txid: bytes) -> bool:
    """Whether the node's mempool has a transaction."""
    try:
        rpc.call("getmempoolentry", txid.hex())
    except RpcError as error:
        if error.code == NOT_FOUND:
            return False
        raise
    return True


def read_outpoint(text: str) -> tuple[bytes, int]:
    """`txid:vout`; raises InvalidInput for anything else."""
    match = _OUTPOINT.fullmatch(text)
    if match is None:
        raise InvalidInput("outpoint", Rule.MALFORMED, repr(text[:80]), "txid:vout")
    return bytes.fromhex(match[1]), int(match[2])


def worst(fates: Sequence[Followed]) -> Followed | None:
    """The one fate that settles a payout: a variant that is mined, or else an anchor that is gone, or one on its way."""
    for kind in (Mined, Replaced, Pending):
        for fate in fates:
            if isinstance(fate, kind):
                return fate
    return None


def _per_vbyte(value: Json) -> int:
    """BTC per 1,000 virtual bytes, as the node writes rates, in whole satoshi per virtual byte, rounded up."""
    return -(-satoshi(value, "fee rate") // 1_000)
