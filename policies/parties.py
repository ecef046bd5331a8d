# SPDX-License-Identifier: AGPL-3.0-or-later
"""`parties.yaml`: who is related to us and who is sanctioned, under the same hash and the same owners as rules.

A bypass moves into data where rules cannot hold it (facts: traps): an affiliate that nobody lists is a stranger to every rule.
So the list is signed like a rule, and whatever leaves it takes the path of a weaker bundle.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.parties import Parties
from custody.rules.refusals import Rule
from custody.rules.wallets import Address
from policies.quantities import text
from policies.shapes import below, mapping
from policies.strict_yaml import Node

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Entity:
    """One affiliate, insider or company of theirs, or one list of sanctions: its name, the reason, its customers and addresses."""

    name: str
    why: str
    customers: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Registry:
    """`parties.yaml` as read. No customer and no address stands in it twice in one part."""

    related: tuple[Entity, ...]
    sanctioned: tuple[Entity, ...]

    @property
    def parties(self) -> Parties:
        """What facts are told by."""
        return Parties(
            frozenset(f"customer:{customer}" for entity in self.related for customer in entity.customers),
            frozenset(address.lower() for entity in self.related for address in entity.addresses),
            frozenset(address.lower() for entity in self.sanctioned for address in entity.addresses),
        )


def read_registry(node: Node, assets: Assets, file: str = "parties.yaml:") -> Registry:
    """Both lists, each of which may be empty. Raises InvalidInput naming what is wrong."""
    fields = mapping(node, file, ("related", "sanctioned"))
    related = tuple(_entities(fields["related"], assets, below(file, "related"), ("customers", "addresses")))
    sanctioned = tuple(_entities(fields["sanctioned"], assets, below(file, "sanctioned"), ("addresses",)))
    return Registry(related, sanctioned)


def _entities(node: Node, assets: Assets, where: str, parts: tuple[str, ...]) -> Iterator[Entity]:
    seen: set[str] = set()
    for position, row in enumerate(_listed(node, where)):
        at = f"{where}[{position}]"
        fields = mapping(row, at, ("entity", "why", *parts))
        name = text(fields["entity"], below(at, "entity"))
        customers = tuple(_customers(fields.get("customers", []), below(at, "customers")))
        addresses = tuple(_addresses(fields["addresses"], assets, below(at, "addresses")))
        if not customers and not addresses:
            raise InvalidInput(at, Rule.MALFORMED, f"{name} with nothing", f"at least one of {' or '.join(parts)}")
        for each in (f"entity {name}", *customers, *(address.lower() for address in addresses)):
            if each in seen:
                raise InvalidInput(at, Rule.NAME_REUSED, each, "each entity, customer and address once")
            seen.add(each)
        yield Entity(name, text(fields["why"], below(at, "why")), customers, addresses)


def _listed(node: Node, where: str) -> list[Node]:
    if not isinstance(node, list):
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "a list, [] where there is nobody")
    return node


def _customers(node: Node, where: str) -> Iterator[str]:
    for position, each in enumerate(_listed(node, where)):
        name = text(each, f"{where}[{position}]")
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(
                f"{where}[{position}]", Rule.MALFORMED, repr(name), "a customer's id, without `customer:`"
            )
        yield name


def _addresses(node: Node, assets: Assets, where: str) -> Iterator[str]:
    """Addresses of any chain of the registry, in their one spelling: a mistyped one would list nobody."""
    for position, each in enumerate(_listed(node, where)):
        at, written = f"{where}[{position}]", text(each, f"{where}[{position}]")
        chains = [chain for chain in assets.chains if chain.is_evm is written.startswith("0x")]
        if not chains:
            raise InvalidInput(at, Rule.WRONG_NETWORK, repr(written), "an address of a chain in assets.yaml")
        yield Address.parse(chains[0], written, at).text
