# SPDX-License-Identifier: AGPL-3.0-or-later
"""The relayer pays gas and can move nothing: what its key signs, and everything it refuses."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from eth_account import Account

from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.relaying import CREATE_PROXY, EXEC_TRANSACTION, RelayCall, check_call, deploy_call_data
from custody.rules.roster import Relayer, RosterVersion, check_genesis
from custody.rules.signatures import Signed
from custody.rules.typed import Domain
from custody.rules.wallets import Chain, Tier
from custody.vault.relayer import RelayerHost
from tests.fakes.seat import BITCOIN, COLD, EVM, HOT, NOW, Deployment, FakeVault, ed25519, rules_of, seat_in_memory

CAP = 10**18


class WithRelayer(Deployment):
    """A deployment whose roster names one relayer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.host = RelayerHost(FakeVault())
        address = "0x" + self.host.identity().public.hex()
        self.version = replace(self.version, relayers=(Relayer(EVM.name, address, CAP),))

    def genesis(self, version: RosterVersion | None = None, without: str = "") -> Signed[RosterVersion]:
        """As `Deployment`, and signed by the relayer."""
        signed = super().genesis(version, without)
        return signed if without == "relayer" else signed.joined([self.host.sign_roster(signed.message)])


def born() -> WithRelayer:
    """Seats in memory, pinned, and a relayer that is not pinned yet."""
    deployment = WithRelayer([seat_in_memory(name) for name in (*HOT, *COLD)])
    deployment.pinned()
    return deployment


@cache
def house() -> WithRelayer:
    """One for every test that changes nothing of it."""
    deployment = born()
    deployment.host.pin(deployment.genesis())
    return deployment


@cache
def hot(chain: Chain = EVM) -> Signed[WalletCertificate]:
    """A hot wallet that people signed."""
    return house().people_sign(house().draft("customer_hot", Tier.CUSTOMER_HOT, chain))


def call(**changes: Any) -> RelayCall:
    """The deployment of the hot Safe, with something changed."""
    certificate = hot().message
    whole = RelayCall(
        EVM.name, 0, certificate.safe[0].factory, 0, deploy_call_data(certificate), 300_000, 2 * 10**9, 10**9
    )
    return replace(whole, **changes)


def test_signs_the_deployment_of_a_certified_safe() -> None:
    """What comes out is a transaction of the relayer's own address."""
    raw = house().host.sign_call(call(), hot(), NOW)
    assert Account.recover_transaction(raw).lower() == "0x" + house().host.identity().public.hex()


REFUSED = [
    pytest.param({"value": 1}, Rule.RELAYER_VALUE, id="one wei"),
    pytest.param({"to": "0x" + "77" * 20}, Rule.RELAYER_TARGET, id="a stranger"),
    pytest.param({"data": b""}, Rule.RELAYER_TARGET, id="the factory, without a call"),
    pytest.param({"data": CREATE_PROXY + bytes(96)}, Rule.RELAYER_TARGET, id="the factory, another Safe"),
    pytest.param({"gas": 10**10}, Rule.RELAYER_CAP, id="gas above the cap"),
    pytest.param({"max_fee_per_gas": 10**15}, Rule.RELAYER_CAP, id="price above the cap"),
    pytest.param({"chain": "eip155:1"}, Rule.SIGNER_UNKNOWN, id="a chain without a relayer"),
]


@pytest.mark.parametrize(("change", "rule"), REFUSED)
def test_refuses(change: dict[str, Any], rule: Rule) -> None:
    """Each names the rule that stands against it."""
    with pytest.raises(Refused) as caught:
        house().host.sign_call(call(**change), hot(), NOW)
    assert rules_of(caught.value) == {rule}


def test_safe_execution_and_its_neighbours() -> None:
    """execTransaction on the Safe itself passes; any other call of the Safe does not."""
    certificate, relayer = hot().message, house().version.relayers[0]
    to_safe = call(to=certificate.safe[0].address, data=EXEC_TRANSACTION + b"x")
    assert list(check_call(to_safe, certificate, relayer)) == []
    other = replace(to_safe, data=bytes.fromhex("468721a7"))  # execTransactionFromModule
    assert [r.rule for r in check_call(other, certificate, relayer)] == [Rule.RELAYER_TARGET]
    exact = replace(to_safe, gas=CAP // (2 * 10**9))
    assert list(check_call(exact, certificate, relayer)) == []
    assert [r.rule for r in check_call(replace(exact, gas=exact.gas + 1), certificate, relayer)] == [Rule.RELAYER_CAP]


def test_a_bitcoin_certificate_is_of_no_use() -> None:
    """It names no Safe."""
    with pytest.raises(Refused) as caught:
        house().host.sign_call(call(), hot(BITCOIN), NOW)
    assert rules_of(caught.value) == {Rule.WRONG_NETWORK}


def test_a_certificate_without_quorum_is_refused() -> None:
    """One person is not two."""
    one = house().people_sign(hot().message, ["ana"])
    with pytest.raises(Refused) as caught:
        house().host.sign_call(call(), one, NOW)
    assert rules_of(caught.value) == {Rule.QUORUM_NOT_REACHED}


def test_signs_nothing_before_genesis_is_pinned() -> None:
    """A fresh relayer knows no roster to check a certificate against."""
    with pytest.raises(Refused) as caught:
        RelayerHost(FakeVault()).sign_call(call(), hot(), NOW)
    assert rules_of(caught.value) == {Rule.WRONG_GENESIS}


def test_version_one_needs_the_relayer_too() -> None:
    """Everybody named signs."""
    missing = born().genesis(without="relayer")
    assert Rule.SIGNATURE_MISSING in {r.rule for r in check_genesis(missing, NOW)}


def test_pins_once() -> None:
    """The same again is fine; another genesis is refused, and so is signing another version 1."""
    deployment = born()
    signed = deployment.genesis()
    deployment.host.pin(signed)
    deployment.host.pin(signed)
    other = replace(deployment.version, delay=1)
    with pytest.raises(Refused) as caught:
        deployment.host.sign_roster(other)
    assert rules_of(caught.value) == {Rule.NOT_SUCCESSOR}


def test_does_not_sign_a_roster_that_names_another() -> None:
    """Nor one that names no relayer at all."""
    with pytest.raises(Refused) as caught:
        RelayerHost(FakeVault()).sign_roster(house().version)
    assert rules_of(caught.value) == {Rule.SIGNER_UNKNOWN}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_while_the_key_is_made(when: str) -> None:
    """Whatever was written stays the key; nothing is made twice."""
    vault = FakeVault()
    setattr(vault, f"die_{when}", 1)
    with pytest.raises(Unavailable):
        RelayerHost(vault).identity()
    vault.die_before = vault.die_after = 0
    first = RelayerHost(vault).identity()
    assert RelayerHost(vault).identity() == first
    assert vault.documents["relayer/key"].__len__() == 1


def test_unsigned_genesis_is_not_pinned() -> None:
    """A roster that nobody signed is no genesis."""
    with pytest.raises(Refused) as caught:
        house().host.pin(Signed(house().version, ()))
    assert rules_of(caught.value) == {Rule.SIGNATURE_MISSING, Rule.DISPLAYING_MISSING}


def test_machines_sign_the_same_digest() -> None:
    """The relayer's signature is over version 1 under its own hash, like everybody's."""
    version = house().version
    signature = house().host.sign_roster(version)
    assert signature.is_over(Domain(version.struct_hash).digest(version))
    assert signature.key != ed25519("attestor").key
