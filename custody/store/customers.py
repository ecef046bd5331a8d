# SPDX-License-Identifier: AGPL-3.0-or-later
"""Customers, and the addresses that the attestor bound to them."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, func
from sqlmodel import col, select

from custody.rules.certificates import DepositAddress
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain
from custody.store.mapping import binding, binding_row
from custody.store.sessions import Sessions
from custody.store.statements import CUSTOMER, Cursor
from custody.store.tables import CustomerRow, DepositAddressRow


class SqlCustomers:
    """Customers inside one transaction."""

    def __init__(self, sessions: Sessions, connection: Connection) -> None:
        self._sessions, self._cursor = sessions, Cursor(connection)

    def add(self, customer: str) -> None:
        """Raises Refused(already_exists), or Refused(malformed) for an id that is empty or longer than 200 characters."""
        if not 1 <= len(customer) <= 200:
            raise Refused(
                [Refusal(Rule.MALFORMED, field="customer", got=f"{len(customer)} characters", want="1 to 200")]
            )
        if self.is_known(customer):
            raise Refused([Refusal(Rule.ALREADY_EXISTS, customer=customer)])
        self._sessions().add(CustomerRow(id=customer))
        self._sessions().flush()

    def ids(self) -> frozenset[str]:
        """Every customer."""
        return frozenset(self._sessions().exec(select(CustomerRow.id)))

    def next_index(self, wallet: bytes) -> int:
        """The lowest index of a wallet that no address uses, from 0 on."""
        of_wallet = DepositAddressRow.wallet == wallet
        count, highest = (
            self._sessions()
            .exec(
                select(func.count(), func.max(DepositAddressRow.number)).select_from(DepositAddressRow).where(of_wallet)
            )
            .one()
        )
        if highest is None or count == highest + 1:
            return int(count)
        used = self._sessions().exec(
            select(DepositAddressRow.number).where(of_wallet).order_by(col(DepositAddressRow.number))
        )
        return next(index for index, number in enumerate([*used, None]) if index != number)

    def add_address(self, signed: Signed[DepositAddress], keys: int = 0) -> None:
        """Record an attested binding, under the wallet's keys of that number.

        Raises Refused: unknown_customer, or what of it is bound already, every reason at once.
        """
        raise_if(self._refusals(signed.message, keys))
        self._sessions().add(binding_row(signed, keys))
        self._sessions().flush()

    def addresses(self, chain: Chain | None = None) -> Sequence[Signed[DepositAddress]]:
        """Every attested binding, ascending by index. Raises InvalidInput on a damaged row."""
        wanted = select(DepositAddressRow).order_by(col(DepositAddressRow.number), col(DepositAddressRow.wallet))
        if chain is not None:
            wanted = wanted.where(DepositAddressRow.chain == chain.name)
        return [binding(row) for row in self._sessions().exec(wanted)]

    def address_of(self, customer: str, wallet: bytes) -> Signed[DepositAddress] | None:
        """The binding of one customer at one wallet, under its newest keys where there are several."""
        row = (
            self._sessions()
            .exec(
                select(DepositAddressRow)
                .where(DepositAddressRow.wallet == wallet, DepositAddressRow.customer == customer)
                .order_by(col(DepositAddressRow.keys).desc())
            )
            .first()
        )
        return None if row is None else binding(row)

    def is_known(self, customer: str) -> bool:
        """Whether there is one of this id."""
        return bool(self._cursor.rows(CUSTOMER, customer))

    def _refusals(self, new: DepositAddress, keys: int) -> Iterator[Refusal]:
        if not self.is_known(new.customer):
            yield Refusal(Rule.UNKNOWN_CUSTOMER, customer=new.customer)
        bound = select(DepositAddressRow).where(DepositAddressRow.wallet == new.wallet)
        if row := self._sessions().exec(bound.where(DepositAddressRow.number == new.index)).first():
            yield Refusal(Rule.INDEX_BOUND, index=new.index, customer=row.customer, would_be=new.customer)
        if (
            row := self._sessions()
            .exec(bound.where(DepositAddressRow.customer == new.customer, DepositAddressRow.keys == keys))
            .first()
        ):
            yield Refusal(Rule.ALREADY_EXISTS, customer=new.customer, wallet=new.wallet.hex(), index=row.number)
        same = select(DepositAddressRow).where(
            DepositAddressRow.chain == new.chain, DepositAddressRow.address == new.address
        )
        if row := self._sessions().exec(same).first():
            yield Refusal(Rule.ALREADY_EXISTS, address=new.address, chain=new.chain, customer=row.customer)
