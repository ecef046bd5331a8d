# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is no stranger, and whom nothing is paid to: the only identities of a bundle. Rules ask, and can name none (law 6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parties:
    """Accounts (`customer:ID`) and addresses of affiliates, insiders and their companies; addresses that are sanctioned.

    An address is its text whatever the chain: whoever holds an EVM key holds it on every EVM chain. Case is not told apart, so that
    another spelling is no way around a list.
    """

    accounts: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    sanctioned: frozenset[str] = frozenset()

    def is_related(self, account: str, destination: str) -> bool:
        """Whether this account, or whoever is paid, belongs to an entity that is listed as related."""
        return account in self.accounts or destination.lower() in self.addresses

    def is_sanctioned(self, destination: str) -> bool:
        """Whether nothing may be paid there."""
        return destination.lower() in self.sanctioned
