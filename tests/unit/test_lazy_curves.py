# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process of ours starts without py-ecc's pairings and py-evm, and whoever wants them finds the real ones."""

import subprocess
import sys
from typing import Final

import pytest

LEFT_OUT: Final = (
    "eth.vm",
    "py_ecc.optimized_bls12_381",
    "py_ecc.bls12_381.bls12_381_pairing",
    "py_ecc.bls.ciphersuites",
)


def _told(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["custody.commands.customer", "custody.chains.evm.view", "custody.vault.host", "api.app"]
)
def test_no_process_of_ours_loads_them(module: str) -> None:
    """Neither a command, nor a seat, nor the API."""
    loaded = _told(f"import {module}, sys; print([name for name in {LEFT_OUT} if name in sys.modules])")
    assert loaded == "[]"


def test_whoever_uses_them_gets_the_real_ones() -> None:
    """A class, a constant, a whole package and a module of it."""
    lazy = "import custody, eth_keyfile.keyfile as k; "
    plain = "import eth_keyfile.keyfile as k; "
    says = "print(k.bls.SkToPk(5).hex(), k.MAX_V4_PRIVATE_KEY)"
    assert _told(lazy + says) == _told(plain + says)
    names = "from py_ecc.bls import G2Basic, hash_to_curve; from py_ecc.bls12_381 import pairing; "
    says = "print(G2Basic.SkToPk(5).hex(), hash_to_curve.__name__, pairing.__module__)"
    assert _told("import custody; " + names + says) == _told(names + says)
    says = "from eth import constants; import eth; print(eth.chains.base.Chain.__name__, constants.ZERO_ADDRESS.hex())"
    assert _told("import custody; " + says) == _told(says)
    assert _told("import custody; from py_ecc import bls\ntry: bls.nothing\nexcept AttributeError as e: print(e)") != ""
