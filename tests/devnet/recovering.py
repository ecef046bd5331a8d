# SPDX-License-Identifier: AGPL-3.0-or-later
"""Recovery with standard tools alone: nothing of custody, policies or devnet is imported here, and a test holds that.

What goes in: the backup file, and what seat operators have of their own shares. bitcoind's descriptor wallets do Bitcoin; safe-eth-py
and the contracts' own ABI do Safes. `docs/recovery.md` tells the same steps to a person.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hvac  # type: ignore[import-untyped]
import requests
from embit.bip32 import HDKey  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]
from eth_account import Account
from eth_account.signers.local import LocalAccount
from safe_eth.eth import EthereumClient
from safe_eth.eth.contracts import get_safe_V1_4_1_contract
from safe_eth.safe import ProxyFactory, Safe
from safe_eth.safe.proxy_factory import ProxyFactoryV141
from web3 import Web3

Rpc = Callable[..., Any]
"""bitcoind's RPC: method, parameters, and `wallet=` for one of its wallets."""
_ZERO = "0x" + "00" * 20


def share_of_an_engine(
    url: str, unseal: Sequence[str], names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], bytes]:
    """A seat operator's share, by (label, chain), where the seat was an engine: out of a copy of its OpenBao's storage.

    No verb of an engine gives out a key, so the copy runs by itself, with `raw_storage_endpoint = true` and a listener that says
    `disable_unauthed_generate_root_endpoints = false`: its unseal shares make a root token, which reads the storage raw.
    """
    session = requests.Session()
    session.trust_env = False

    def ask(method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        answer = session.request(method, f"{url}/v1/sys/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    begun, told = ask("PUT", "generate-root/attempt", {}), {"complete": False}
    for share in unseal:
        told = told if told["complete"] else ask("PUT", "generate-root/update", {"key": share, "nonce": begun["nonce"]})
    encoded = str(told["encoded_token"])
    raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    session.headers["X-Vault-Token"] = bytes(a ^ b for a, b in zip(raw, begun["otp"].encode(), strict=True)).decode()
    found = {}
    for mount in ask("LIST", "raw/logical")["data"]["keys"]:
        for label, chain in names:
            path = f"raw/logical/{mount}documents/keys/" + hashlib.sha256(f"{label}\x00{chain}".encode()).hexdigest()
            answer = session.get(f"{url}/v1/sys/{path}", timeout=30)
            if answer.ok:
                stored = answer.json()["data"]["value"]
                found[label, chain] = bytes.fromhex(json.loads(stored.partition("\n")[2])["secret"])
    return found


def operators_share(approle: Mapping[str, str], names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """The same where a process hosted the seat: out of its OpenBao's KV store, by the login that its operator holds."""
    client = hvac.Client(url=approle["url"])
    client.auth.approle.login(approle["role_id"], approle["secret_id"])
    found = {}
    for label, chain in names:
        path = "keys/" + hashlib.sha256(f"{label}\x00{chain}".encode()).hexdigest()
        stored = client.secrets.kv.v2.read_secret_version(path, mount_point="bulkhead", raise_on_deleted_version=True)
        found[label, chain] = bytes.fromhex(json.loads(stored["data"]["data"]["document"])["secret"])
    return found


def newest(backup: Mapping[str, Any], label: str, chain: str) -> dict[str, Any]:
    """The last certificate of a wallet, by its first label; each names its predecessor's hash, so the last has the longest label."""
    messages = [row["message"] for row in backup["certificates"] if row["message"]["chain"] == chain]
    line = [m for m in messages if m["label"] == label or m["label"].startswith(label + ":")]
    return dict(max(line, key=lambda m: int(m["label"].rpartition(":")[2]) if ":" in m["label"] else 1))


# Bitcoin


def recover_bitcoin(
    rpc: Rpc, certificate: Mapping[str, Any], seeds: Mapping[str, bytes], to: str, last: int, name: str = "rescue"
) -> str:
    """Everything under one descriptor to an address: one wallet for each share, PSBTs between them; the transaction's id."""
    text = certificate["script"][0]["descriptor"].partition("#")[0]
    _wallet(rpc, f"{name}-watch", text, last, private=False)
    for seat, seed in seeds.items():
        xpub = next(s["key"]["xpub"] for s in certificate["seats"] if s["key"]["seat"] == seat)
        _wallet(rpc, f"{name}-{seat}", text.replace(xpub, _private(xpub, seed)), last, private=True)
    total = rpc("getbalances", wallet=f"{name}-watch")["mine"]["trusted"]
    options = {"subtractFeeFromOutputs": [0], "fee_rate": 5}
    psbt = rpc("walletcreatefundedpsbt", [], [{to: total}], 0, options, wallet=f"{name}-watch")["psbt"]
    signed = [rpc("walletprocesspsbt", psbt, wallet=f"{name}-{seat}")["psbt"] for seat in seeds]
    done = rpc("finalizepsbt", rpc("combinepsbt", signed))
    if not done["complete"]:
        raise ValueError("too few shares")
    return str(rpc("sendrawtransaction", done["hex"]))


def _private(xpub: str, seed: bytes) -> str:
    """The same key expression with the private key in place of the public one, by the path that its origin tells."""
    origin, _, public = xpub.partition("]")
    network = NETWORKS["main" if public.startswith("xpub") else "regtest"]
    path = origin.partition("/")[2]
    account = HDKey.from_seed(seed, version=network["xprv"]).derive(f"m/{path}")
    if account.to_public().to_base58(version=network["xpub"]) != public:
        raise ValueError("a share of another key")
    return f"{origin}]{account.to_base58(version=network['xprv'])}"


def _wallet(rpc: Rpc, name: str, descriptor: str, last: int, *, private: bool) -> None:
    rpc("createwallet", name, not private, True)
    asked = []
    for branch in ("0", "1"):
        one = descriptor.replace("<0;1>", branch)
        checksum = rpc("getdescriptorinfo", one)["checksum"]
        spec = {"desc": f"{one}#{checksum}", "timestamp": 0, "range": [0, last], "internal": branch == "1"}
        asked.append({**spec, "active": False})
    for answer in rpc("importdescriptors", asked, wallet=name):
        if not answer["success"]:
            raise ValueError(answer)


# Safes


@dataclass
class SafeRescue:
    """One Safe, the owners' keys that came back, and somebody who pays the gas."""

    url: str
    certificate: Mapping[str, Any]
    keys: Sequence[bytes]
    payer: LocalAccount

    def __post_init__(self) -> None:
        self.client = EthereumClient(self.url)  # type: ignore[arg-type]
        self.parameters = self.certificate["safe"][0]
        self.safe = Safe(self.parameters["address"], self.client)  # type: ignore[abstract]

    def send(self, to: str, value: int, data: bytes = b"") -> None:
        """One call by the Safe, signed by the shares and executed by whoever pays."""
        tx = self.safe.build_multisig_tx(Web3.to_checksum_address(to), value, data)
        for key in self.keys:
            tx.sign("0x" + key.hex())
        tx.execute("0x" + bytes(self.payer.key).hex())

    def empty_deposit(self, index: int, address: str) -> None:
        """A deposit address of the Safe: deployed by its index where nobody did, then told by its only owner to pay that owner."""
        own = self.safe.address
        setup = get_safe_V1_4_1_contract(self.client.w3, own).encode_abi(
            "setup", [[own], 1, _ZERO, b"", self.parameters["handler"], _ZERO, 0, _ZERO]
        )
        if not self.client.is_contract(Web3.to_checksum_address(address)):
            factory: ProxyFactory = ProxyFactoryV141(self.parameters["factory"], self.client)
            made = factory.deploy_proxy_contract_with_nonce(
                self.payer, self.parameters["singleton"], bytes.fromhex(setup[2:]), index
            )
            if made.contract_address != address:
                raise ValueError((made.contract_address, address))
        units = self.client.get_balance(Web3.to_checksum_address(address))
        approved = bytes.fromhex(own[2:]).rjust(32, b"\0") + bytes(32) + b"\x01"
        inner = get_safe_V1_4_1_contract(self.client.w3, Web3.to_checksum_address(address)).encode_abi(
            "execTransaction", [own, units, b"", 0, 0, 0, 0, _ZERO, _ZERO, approved]
        )
        self.send(address, 0, bytes.fromhex(inner[2:]))


def payer() -> LocalAccount:
    """A fresh account."""
    made: LocalAccount = Account.create()
    return made
