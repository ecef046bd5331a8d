# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ethereum's consensus curve and a whole EVM are loaded by whoever uses them, which is nobody here.

eth-account imports eth-keyfile, which imports two packages of py-ecc for validators' BLS keystores and one constant; safe-eth-py
imports all of py-evm for one function that makes an address. Pairings work out tables when they are imported, and that is half of the
time that any of our processes takes to start. Here these packages stand in `sys.modules` with their true folders and without having
run: their modules import as always, the names in WHERE are looked up when they are used, and any other name makes the package run as
it is. Nothing of py-ecc or py-evm is changed or replaced.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

WHERE: Final[Mapping[str, Mapping[str, str]]] = {
    "py_ecc.bls": {"G2ProofOfPossession": "ciphersuites"},
    "py_ecc.bls12_381": {"curve_order": "bls12_381_curve"},
    "eth": {},
}
"""Packages that wait, and in which of their modules the names are that eth-keyfile imports from them."""


class _Waiting:
    """Stands for a class until something of it is asked for."""

    def __init__(self, module: str, name: str) -> None:
        self._of = module, name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the real one has
        module, of = self._of
        return getattr(getattr(importlib.import_module(module), of), name)


class _Package(ModuleType):
    """A package whose `__init__` has not run."""

    ran = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        inside = WHERE[self.__name__].get(name)
        if inside is not None:
            module = f"{self.__name__}.{inside}"
            return _Waiting(module, name) if name[0].isupper() else getattr(importlib.import_module(module), name)
        spec = self.__spec__
        if name.startswith("__") or self.ran or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.ran = True
        spec.loader.exec_module(self)
        if name not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.__dict__[name]


def wait() -> None:
    """Let both packages wait, where nobody has loaded them already."""
    for name in WHERE:
        root, _, inside = name.partition(".")
        found = None if name in sys.modules else importlib.util.find_spec(root)
        if found is None or found.origin is None:
            continue
        folder = Path(found.origin).parent
        beside = [str(folder)] if inside else None
        # asked of the finders themselves: `find_spec` of importlib.util would run the package above
        specs = (finder.find_spec(name, beside, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        package = _Package(name)
        package.__path__ = [str(folder / inside)]
        package.__spec__ = next((spec for spec in specs if spec is not None), None)
        sys.modules[name] = package
