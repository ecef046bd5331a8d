# SPDX-License-Identifier: AGPL-3.0-or-later
"""The relayer's own seat: one secp256k1 key in its own OpenBao, which pays gas and can move nothing (rules/relaying.py)."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import PrivateKey

from custody.answers import Handler, read_body
from custody.flows.ports import Clock
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.relaying import RelayCall, check_call
from custody.rules.roster import Relayer, Roster, RosterVersion, check_genesis, check_version, relayer_key
from custody.rules.signatures import Key, Scheme, Signature, Signed
from custody.rules.typed import Domain
from custody.rules.wallets import Chain
from custody.vault.hardening import harden, wall_clock
from custody.vault.openbao import OpenBaoClient
from custody.vault.storage import CasConflict, Vault
from custody.wire import Client, serve

_KEY: Final = "relayer/key"
_PINNED: Final = "relayer/pinned"


class RelayerHost:
    """Makes the key once, pins version 1 once, and signs what `check_call` lets through for a certificate it verified."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def identity(self) -> Key:
        """The gas-paying key by its address; made at the first call."""
        return Key(Scheme.EIP712_SECP256K1, self._private().public_key.to_canonical_address())

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign a version 1 that names this address, before and after pinning that same version only."""
        raise_if(check_version(version))
        self._named(version)
        pinned = self._pinned()
        if version.version != 1 or (pinned is not None and pinned.message != version):
            raise Refused(
                [
                    Refusal(
                        Rule.NOT_SUCCESSOR, version=version.version, want="the version 1 that is pinned, or the first"
                    )
                ]
            )
        digest = Domain(version.struct_hash).digest(version)
        return Signature(self.identity(), self._private().sign_msg_hash(digest).to_bytes())

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once; the same again is fine, another is refused."""
        raise_if(check_genesis(signed, signed.message.not_before))
        self._named(signed.message)
        pinned = self._pinned()
        if pinned is not None and pinned.message != signed.message:
            raise Refused(
                [
                    Refusal(
                        Rule.WRONG_GENESIS, got=signed.message.struct_hash.hex(), want=pinned.message.struct_hash.hex()
                    )
                ]
            )
        if pinned is None:
            try:
                self._vault.write(_PINNED, signed.to_json(), 0)
            except CasConflict as error:
                raise Unavailable("relayer", "another call pinned meanwhile; ask again") from error

    def sign_call(self, call: RelayCall, certificate: Signed[WalletCertificate], now: int) -> bytes:
        """The signed EIP-1559 transaction, RLP bytes; raises Refused with every reason against it."""
        pinned = self._pinned()
        if pinned is None:
            raise Refused([Refusal(Rule.WRONG_GENESIS, got="nothing pinned", want="bulkhead init")])
        roster = Roster(pinned, pinned.message.struct_hash)
        refusals = list(roster.check_certificate(certificate, now))
        raise_if(refusals or check_call(call, certificate.message, self._entry(pinned.message, call.chain)))
        account: LocalAccount = Account.from_key(self._private())
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": Chain(call.chain).evm_id,
            "nonce": call.nonce,
            "to": call.to,
            "value": call.value,
            "data": call.data,
            "gas": call.gas,
            "maxFeePerGas": call.max_fee_per_gas,
            "maxPriorityFeePerGas": call.max_priority_fee_per_gas,
        }
        return bytes(account.sign_transaction(fields).raw_transaction)

    def _entry(self, version: RosterVersion, chain: str) -> Relayer:
        mine = self.identity()
        for relayer in version.relayers:
            if relayer.chain == chain and relayer_key(relayer) == mine:
                return relayer
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, relayer=str(mine), chain=chain)])

    def _named(self, version: RosterVersion) -> None:
        if self.identity() not in {relayer_key(relayer) for relayer in version.relayers}:
            raise Refused(
                [Refusal(Rule.SIGNER_UNKNOWN, relayer=str(self.identity()), want="a relayer of this version")]
            )

    def _pinned(self) -> Signed[RosterVersion] | None:
        body, _ = self._vault.read(_PINNED)
        return None if body is None else Signed.from_json(RosterVersion, dict(body))

    def _private(self) -> PrivateKey:
        body, version = self._vault.read(_KEY)
        if body is None:
            with suppress(CasConflict):  # another call made it first; theirs is read below
                self._vault.write(_KEY, {"secret": os.urandom(32).hex()}, version)
            body, _ = self._vault.read(_KEY)
        secret = (body or {}).get("secret")
        if not isinstance(secret, str):
            raise InvalidInput("relayer key", Rule.MALFORMED, "another shape", "a secret made by this host")
        return PrivateKey(bytes.fromhex(secret))


def relayer_handlers(relayer: RelayerHost, clock: Clock) -> Mapping[str, Handler]:
    """The relayer's verbs; none gives out its key."""

    def identity(body: object) -> object:
        read_body(body)
        return relayer.identity().to_json()

    def sign_roster(body: object) -> object:
        return relayer.sign_roster(RosterVersion.from_json(read_body(body, "version")[0])).to_json()

    def pin(body: object) -> object:
        relayer.pin(Signed.from_json(RosterVersion, read_body(body, "signed")[0]))
        return {}

    def sign_call(body: object) -> object:
        call, certificate = read_body(body, "call", "certificate")
        raw = relayer.sign_call(RelayCall.from_json(call), Signed.from_json(WalletCertificate, certificate), clock())
        return {"raw": "0x" + raw.hex()}

    return {verb.__name__: verb for verb in (identity, sign_roster, pin, sign_call)}


def serve_relayer(approle: Path, path: Path, *, clock: Clock = wall_clock) -> None:
    """Host the relayer's key until SIGTERM."""
    harden()
    relayer = RelayerHost(OpenBaoClient.from_file(approle))
    relayer.identity()
    serve(path, relayer_handlers(relayer, clock))


class RemoteRelayer:
    """The relayer over its socket."""

    def __init__(self, socket: Path) -> None:
        self._client = Client(socket, name="relayer")

    def identity(self) -> Key:
        """Its key, by address."""
        return Key.from_json(self._client.call("identity"))

    def sign_roster(self, version: RosterVersion) -> Signature:
        """See RelayerHost."""
        return Signature.from_json(self._client.call("sign_roster", {"version": version.to_json()}))

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """See RelayerHost."""
        self._client.call("pin", {"signed": signed.to_json()})

    def sign_call(self, call: RelayCall, certificate: Signed[WalletCertificate]) -> bytes:
        """See RelayerHost; the host brings its own time."""
        answer = self._client.call("sign_call", {"call": call.to_json(), "certificate": certificate.to_json()})
        raw = answer.get("raw") if isinstance(answer, Mapping) else None
        if not isinstance(raw, str):
            raise Unavailable("relayer", "its socket answered in another shape")
        return bytes.fromhex(raw.removeprefix("0x"))
