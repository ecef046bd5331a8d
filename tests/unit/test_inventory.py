# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whose an address is, from certificates and attested bindings; and how a customer comes to have one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from custody.flows.customers import add_customer, issue_address
from custody.flows.inventory import GAP, Inventory
from custody.flows.mirror import CERTIFICATE, put_signed
from custody.flows.ports import Branch
from custody.rules.certificates import DepositAddress
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import Account, AccountKind
from custody.rules.payouts import CHANGE_WINDOW, Surroundings
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.house import DERIVE, House, address_of, binding, certificate, certificates, deployment, roster
from tests.fakes.ledger import ASSETS, BTC, EQUITY, EVM, SUSPENSE
from tests.fakes.seat import ed25519, rules_of


def inventory(*bindings: Signed[DepositAddress]) -> Inventory:
    """The deployment's wallets with these bindings."""
    return Inventory(certificates(), bindings, DERIVE)


def derived(tier: Tier, chain: Chain, index: int, branch: Branch = Branch.RECEIVE) -> Address:
    """An address of a wallet."""
    return DERIVE.derive(certificate(tier, chain), branch, index)


def sign(message: DepositAddress, name: str = "attestor") -> Signed[DepositAddress]:
    """A binding signed by somebody."""
    return Signed(message, (ed25519(name).sign(deployment().domain.digest(message)),))


class TestInventory:
    """Wallets, owners, watched addresses."""

    @pytest.mark.parametrize(
        ("address", "owner"),
        [
            pytest.param(lambda: address_of("ana", EVM, 0), Account(AccountKind.CUSTOMER_AVAILABLE, "ana"), id="bound"),
            pytest.param(lambda: derived(Tier.CUSTOMER_HOT, EVM, 1), SUSPENSE, id="not bound yet"),
            pytest.param(lambda: DERIVE.main(certificate(Tier.CUSTOMER_HOT, EVM)), SUSPENSE, id="the omnibus"),
            pytest.param(lambda: derived(Tier.CUSTOMER_HOT, BTC, 0, Branch.CHANGE), SUSPENSE, id="change"),
            pytest.param(lambda: derived(Tier.CUSTOMER_COLD, BTC, 3), SUSPENSE, id="cold"),
            pytest.param(lambda: DERIVE.main(certificate(Tier.OPERATIONAL, EVM)), EQUITY, id="the company's"),
        ],
    )
    def test_owner(self, address: Callable[[], Address], owner: Account) -> None:
        """Who is owed what arrives."""
        assert owner == inventory(binding("ana", EVM, 0)).owner_of(address())

    def test_not_ours(self) -> None:
        """A stranger's address has no owner here."""
        stranger = Address(EVM, "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc")
        with pytest.raises(Refused, match="unknown_wallet"):
            inventory().owner_of(stranger)
        assert (inventory().wallet_of(stranger), inventory().holding_of(stranger)) == (None, None)

    def test_watched(self) -> None:
        """The Safes, what is bound, and windows beyond it; only customer tiers back customers."""
        found = inventory(binding("ana", EVM, 0), binding("bo", BTC, 0))
        assert 1 + 1 + GAP[True] + 1 == len(found.watched(EVM))
        assert 1 + GAP[False] + CHANGE_WINDOW + GAP[False] + CHANGE_WINDOW == len(found.watched(BTC))
        assert derived(Tier.CUSTOMER_HOT, BTC, GAP[False]) in found.watched(BTC)
        company = DERIVE.main(certificate(Tier.OPERATIONAL, EVM))
        assert found.watched(EVM) - found.customer_addresses(EVM) == {company}

    def test_change_within_the_window_and_no_further(self) -> None:
        """Every index that a seat signs change for is watched in each wallet, and no other: both go by one number."""
        found = inventory()
        around = Surroundings(b"", certificate(Tier.CUSTOMER_HOT, BTC), ASSETS)
        assert around.window.change == CHANGE_WINDOW - 1
        for tier in (Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD):
            for index in range(CHANGE_WINDOW):
                assert found.owner_of(derived(tier, BTC, index, Branch.CHANGE)) == SUSPENSE
            assert found.wallet_of(derived(tier, BTC, CHANGE_WINDOW, Branch.CHANGE)) is None

    def test_hole_stays_watched(self) -> None:
        """An index that was left unbound below a bound one is not forgotten."""
        found = inventory(binding("ana", EVM, 0), binding("bo", EVM, 2))
        assert derived(Tier.CUSTOMER_HOT, EVM, 1) in found.watched(EVM)
        assert found.wallets[certificate(Tier.CUSTOMER_HOT, EVM).wallet].lowest_free == 1

    @pytest.mark.parametrize(
        ("bindings", "rule"),
        [
            pytest.param(
                lambda: [binding("ana", EVM, 0), binding("bo", EVM, 0)], Rule.INDEX_BOUND, id="an index twice"
            ),
            pytest.param(
                lambda: [sign(replace(binding("ana", EVM, 0).message, address=address_of("bo", EVM, 1).text))],
                Rule.ADDRESS_MISMATCH,
                id="another index's address",
            ),
            pytest.param(
                lambda: [sign(replace(binding("ana", EVM, 0).message, chain=BTC.name))],
                Rule.WRONG_NETWORK,
                id="another chain",
            ),
            pytest.param(
                lambda: [sign(replace(binding("ana", EVM, 0).message, wallet=bytes(32)))],
                Rule.UNKNOWN_WALLET,
                id="no wallet",
            ),
            pytest.param(lambda: [company_binding()], Rule.TIER_NOT_CUSTOMER, id="the company's wallet"),
        ],
    )
    def test_refused(self, bindings: Callable[[], Sequence[Signed[DepositAddress]]], rule: Rule) -> None:
        """What does not fit together makes no inventory."""
        with pytest.raises(Refused) as refused:
            inventory(*bindings())
        assert rule in rules_of(refused.value)

    def test_rotation_keeps_the_wallet(self) -> None:
        """A successor's wallet is its predecessor's; one without a predecessor is refused."""
        hot = certificate(Tier.CUSTOMER_HOT, EVM)
        successor = deployment().people_sign(replace(hot, previous=hot.struct_hash, birth=9))
        found = Inventory([*certificates(), successor], [], DERIVE)
        assert (len(certificates()), 9) == (len(found.wallets), found.wallets[hot.wallet].certificate.birth)
        assert found.wallets[hot.wallet].birth == 1
        with pytest.raises(Refused, match="not_the_successor"):
            Inventory([successor], [], DERIVE)


def company_binding() -> Signed[DepositAddress]:
    """An attested binding that would put a customer's coins into the company's wallet: a breach of the wall."""
    company = certificate(Tier.OPERATIONAL, EVM)
    return sign(DepositAddress(company.wallet, EVM.name, "ana", 0, DERIVE.derive(company, Branch.RECEIVE, 0).text))


class TestReader:
    """From the mirror, which nobody believes."""

    def test_same_object_while_nothing_changed(self) -> None:
        """Signatures are verified once; a new binding makes a new inventory."""
        house = House()
        first = house.inventory()
        assert first is house.inventory()
        house.store.run(lambda work: work.customers.add("cy"))
        house.store.run(lambda work: work.customers.add_address(binding("cy", EVM, 2)))
        assert house.inventory() is not first

    @pytest.mark.parametrize(
        ("plant", "rule"),
        [
            pytest.param(
                lambda work: put_signed(
                    work.documents, CERTIFICATE, Signed(replace(certificate(Tier.CUSTOMER_HOT, EVM), birth=7), ())
                ),
                Rule.QUORUM_NOT_REACHED,
                id="a certificate nobody signed",
            ),
            pytest.param(
                lambda work: work.customers.add_address(sign(binding("bo", EVM, 1).message, "mallory")),
                Rule.SIGNATURE_INVALID,
                id="a binding that the attestor never signed",
            ),
        ],
    )
    def test_forged(self, plant: Callable[[object], None], rule: Rule) -> None:
        """A row planted in the database makes no wallet and no address."""
        house = House(customers=("ana",))
        house.store.run(lambda work: work.customers.add("bo"))
        house.store.run(plant)
        with pytest.raises(Refused) as refused:
            house.inventory()
        assert rule in rules_of(refused.value)


class TestCustomers:
    """Adding customers, issuing addresses."""

    @pytest.mark.parametrize("good", ["a", "0", "ana.smith_1-x", "a" * 64])
    def test_id(self, good: str) -> None:
        """Ids that are accepted."""
        house = House(customers=())
        add_customer(house.store, good)
        assert {good} == house.store.read(lambda work: work.customers.ids())

    @pytest.mark.parametrize("bad", ["", "A", "-a", ".a", "a" * 65, "a b", "a:b", "ä", "a\n", "company/x"])
    def test_bad_id(self, bad: str) -> None:
        """Ids that are not."""
        house = House(customers=())
        with pytest.raises(InvalidInput) as refused:
            add_customer(house.store, bad)
        assert (refused.value.field, refused.value.rule) == ("customer", Rule.MALFORMED)
        assert frozenset() == house.store.read(lambda work: work.customers.ids())

    def test_issue(self) -> None:
        """The next index, bound by the attestor; the same again afterwards."""
        house = House(customers=())
        attestor = house.attestor()
        for customer in ("ana", "bo"):
            add_customer(house.store, customer)
        hot = house.wallet(Tier.CUSTOMER_HOT, EVM)
        first = issue_address(house.store, attestor, roster(), hot, "ana", DERIVE)
        second = issue_address(house.store, attestor, roster(), hot, "bo", DERIVE)
        assert (first.message.index, second.message.index) == (0, 1)
        assert first == issue_address(house.store, attestor, roster(), hot, "ana", DERIVE)
        assert binding("ana", EVM, 0) == first

    def test_unknown_customer(self) -> None:
        """No address for somebody who is not a customer, and nothing bound."""
        house = House(customers=())
        with pytest.raises(Refused, match="unknown_customer"):
            issue_address(
                house.store, house.attestor(), roster(), house.wallet(Tier.CUSTOMER_HOT, EVM), "mallory", DERIVE
            )
        assert not [path for path in house.vault.documents if path.startswith("bindings/")]

    def test_crash_between_attestor_and_store(self) -> None:
        """Bound but not recorded: the index stays that customer's, others go round it, and the next call completes."""
        house = House(customers=())
        for customer in ("ana", "bo"):
            add_customer(house.store, customer)
        hot, attestor = house.wallet(Tier.CUSTOMER_HOT, EVM), house.attestor()
        lost = attestor.bind(binding("ana", EVM, 0).message)
        assert issue_address(house.store, attestor, roster(), hot, "bo", DERIVE).message.index == 1
        hot = house.wallet(Tier.CUSTOMER_HOT, EVM)
        assert lost == issue_address(house.store, house.attestor(), roster(), hot, "ana", DERIVE)

    @pytest.mark.parametrize(
        ("answer", "rule"),
        [
            pytest.param(lambda asked: sign(asked, "mallory"), Rule.SIGNATURE_INVALID, id="another key"),
            pytest.param(lambda asked: Signed(asked, ()), Rule.SIGNATURE_INVALID, id="no signature"),
            pytest.param(
                lambda asked: sign(replace(asked, customer="bo")), Rule.ADDRESS_MISMATCH, id="another customer"
            ),
            pytest.param(
                lambda asked: sign(replace(asked, address="0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc")),
                Rule.ADDRESS_MISMATCH,
                id="a thief's address, truly signed",
            ),
        ],
    )
    def test_answer_is_checked(self, answer: Callable[[DepositAddress], Signed[DepositAddress]], rule: Rule) -> None:
        """What the attestor answers is neither recorded nor shown unless it is what was asked, signed, and derives here."""
        house = House(customers=("ana",))
        house.store.run(lambda work: work.customers.add("cy"))
        attestor = house.attestor()
        attestor.bind = answer  # type: ignore[method-assign, assignment]
        with pytest.raises(Refused) as refused:
            issue_address(house.store, attestor, roster(), house.wallet(Tier.CUSTOMER_HOT, EVM), "cy", DERIVE)
        assert rule in rules_of(refused.value)
        assert len(house.store.read(lambda work: work.customers.addresses())) == 2

    def test_recorded_address_is_checked_again(self) -> None:
        """What the database gives out is checked as if it were new: a thief's address is not shown, whoever signed it."""
        house = House(customers=())
        add_customer(house.store, "ana")
        hot, thief = house.wallet(Tier.CUSTOMER_HOT, EVM), "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"
        planted = sign(replace(binding("ana", EVM, 0).message, address=thief))
        house.store.run(lambda work: work.customers.add_address(planted))
        with pytest.raises(Refused) as refused:
            issue_address(house.store, house.attestor(), roster(), hot, "ana", DERIVE)
        assert rules_of(refused.value) == {Rule.ADDRESS_MISMATCH}

    def test_vault_silent(self) -> None:
        """The attestor's vault dies before it binds: nothing recorded, and the next call is fine."""
        house = House(customers=())
        add_customer(house.store, "ana")
        house.vault.die_before = house.vault.writes + 2
        hot = house.wallet(Tier.CUSTOMER_HOT, EVM)
        with pytest.raises(Unavailable):
            issue_address(house.store, house.attestor(), roster(), hot, "ana", DERIVE)
        assert issue_address(house.store, house.attestor(), roster(), hot, "ana", DERIVE).message.index == 0
