# SPDX-License-Identifier: AGPL-3.0-or-later
"""What web process and worker judge by, read from a mirror: verified from genesis on, by the right clock, freezes and all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from custody.chains.addresses import ChainDeriver
from custody.composing import BITCOIN_MAXIMUM_FEE, MirrorKernel, maximum_fees, read_genesis
from custody.flows import freezes
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import UnitOfWork
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import Freeze, PolicyActivation
from custody.rules.refusals import Refused, Rule
from custody.rules.typed import ZERO32
from tests.fakes import house
from tests.fakes.seat import BITCOIN, EVM, NOW, rules_of, secp256k1, signed_by
from tests.fakes.seated import shipped
from tests.fakes.store import FakeStore
from tests.fakes.trust import ASSETS, world


def furnished(owners: tuple[str, ...] = ("ana", "bo"), not_before: int = NOW) -> FakeStore:
    """A mirror with the roster, every certificate, and the shipped bundle's activation by these owners."""
    store = FakeStore()
    message = PolicyActivation(shipped().hash, ZERO32, ZERO32, "cy", not_before)
    signed = signed_by(message, world().domain, [secp256k1(name) for name in owners])

    def furnish(work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, world().deployment.genesis())
        for certificate in world().certificates.values():
            put_signed(work.documents, CERTIFICATE, certificate)
        if owners:
            work.documents.put(BUNDLE, shipped().hash.hex(), shipped().to_json())
            work.documents.put(ACTIVATION, shipped().hash.hex(), signed.to_json())

    store.run(furnish)
    return store


def mirror(store: FakeStore, genesis: bytes = b"") -> MirrorKernel:
    """Over it, on this machine's clock; the attestor is not asked."""
    return MirrorKernel(store, genesis or world().domain.genesis, shipped().assets, ChainDeriver(), never, lambda: NOW)


def never() -> int:
    """An attestor that does not answer."""
    raise Unavailable("attestor", "no answer")


def test_a_kernel_with_its_freezes() -> None:
    """Rosters, wallets, the bundle, fees; and a freeze as soon as it is recorded."""
    store = furnished()
    read = mirror(store)
    kernel = read()
    assert (len(list(kernel.inventory)), kernel.policies.newest.hash, kernel.freezes) == (6, shipped().hash, ())
    message = Freeze("all", "phone stolen", NOW, NOW + 60)
    freezes.freeze(store, kernel, signed_by(message, world().domain, [secp256k1("bo")]), NOW)
    assert read().freezes == (message,)
    assert read().frozen({"customer:ada"}, NOW) == message


@pytest.mark.parametrize(
    ("store", "genesis", "rule"),
    [
        pytest.param(furnished, b"\x01" * 32, Rule.WRONG_GENESIS, id="another genesis"),
        pytest.param(lambda: furnished(()), b"", Rule.SIGNATURE_MISSING, id="no activation"),
        pytest.param(lambda: furnished(("ana",)), b"", Rule.QUORUM_NOT_REACHED, id="one owner of two"),
        pytest.param(lambda: furnished(("ana", "cy")), b"", Rule.QUORUM_NOT_REACHED, id="the author counts for nobody"),
        pytest.param(lambda: furnished(not_before=NOW + 1), b"", Rule.TOO_EARLY, id="not in force yet"),
    ],
)
def test_no_kernel(store: Callable[[], FakeStore], genesis: bytes, rule: Rule) -> None:
    """What is not verified is not composed."""
    with pytest.raises(Refused) as caught:
        mirror(store(), genesis)()
    assert rules_of(caught.value) == {rule}


@pytest.mark.parametrize(
    ("told", "version"), [pytest.param(NOW + 99, 1, id="not yet"), pytest.param(NOW + 100, 2, id="in force")]
)
def test_a_roster_by_the_statements_time(told: int, version: int) -> None:
    """Where genesis declares `clock: statement`, the attestor's time puts a roster in force; it never runs behind this machine's."""
    born, store = house.deployment(), FakeStore()
    for signed in (born.genesis(), born.people_sign(born.successor(not_before=NOW + 100))):
        store.run(lambda work, signed=signed: put_signed(work.documents, ROSTER, signed))  # type: ignore[misc]
    read = MirrorKernel(store, born.domain.genesis, shipped().assets, ChainDeriver(), lambda: told, lambda: NOW)
    assert [roster.version.version for roster in read.rosters()][-1] == version
    assert read.clock() == told
    late = MirrorKernel(store, born.domain.genesis, shipped().assets, ChainDeriver(), lambda: NOW - 5, lambda: NOW)
    assert late.clock() == NOW


def test_fees() -> None:
    """The relayer pays on EVM."""
    assert maximum_fees(ASSETS) == {EVM: 0, BITCOIN: BITCOIN_MAXIMUM_FEE}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        pytest.param("0x" + "ab" * 32 + "\n", True, id="whole"),
        pytest.param("ab" * 31, False, id="short"),
        pytest.param("genesis", False, id="no hex"),
        pytest.param(None, False, id="not born"),
    ],
)
def test_genesis_comes_from_the_home(tmp_path: Path, text: str | None, fits: bool) -> None:
    """32 bytes in a file, or no deployment."""
    if text is not None:
        (tmp_path / "genesis").write_text(text)
    if fits:
        assert read_genesis(tmp_path) == b"\xab" * 32
        return
    with pytest.raises(InvalidInput):
        read_genesis(tmp_path)
