# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor's key, and what it must never forget: who an index belongs to, its sequence, the history it vouched for."""

from typing import Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import JournalHead
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Key, Signature
from custody.vault.storage import CasConflict, Identity, Vault

_SEQUENCE: Final = "sequence"
_ATTESTED: Final = "attested"
_TRIES: Final = 5


class AttestorVault:
    """Durable promises over the attestor's own vault, each written before anything that rests on it is signed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._identity = Identity(vault)

    def identity(self) -> Key:
        """The attestor's Ed25519 key."""
        return self._identity.key

    def sign(self, digest: bytes) -> Signature:
        """Sign a typed message's 32-byte digest."""
        return self._identity.sign(digest)

    def bind(self, wallet: bytes, index: int, customer: str, address: str, keys: int = 0) -> None:
        """Bind an index of a wallet to one customer and address for ever, and the customer to this one index under these keys.

        `keys` counts the wallet's rotations on Bitcoin, after each of which a customer gets an address that follows no longer.

        The same again is fine, and completes a binding that a crash cut in half. Raises Refused: INDEX_BOUND where the
        index is another customer's or the customer has another index, ADDRESS_MISMATCH where the index has another address.
        """
        of_index = f"bindings/{wallet.hex()}/{index}"
        of_customer = f"customers/{wallet.hex()}/{customer.encode().hex()}" + (f"-{keys}" if keys else "")
        binding = {"customer": customer, "address": address}
        claim = {"index": str(index)}
        _same_binding(index, self._vault.read(of_index)[0], binding)
        _same_claim(customer, self._vault.read(of_customer)[0], claim)
        # The index first: cut off here, it stays this customer's, unsigned, and nobody else can ever be given it.
        _same_binding(index, self._create(of_index, binding), binding)
        _same_claim(customer, self._create(of_customer, claim), claim)

    def next_sequence(self, at_least: int) -> int:
        """A number never given before: above every earlier one and not below `at_least`. Burnt even if nothing is signed."""
        for _ in range(_TRIES):
            stored, version = self._vault.read(_SEQUENCE)
            value = max(_integer(stored, "value", _SEQUENCE) + 1 if stored is not None else 1, at_least)
            try:
                self._vault.write(_SEQUENCE, {"value": str(value)}, cas=version)
            except CasConflict:
                continue
            return value
        raise Unavailable("attestor sequence", "other processes keep taking numbers")

    def attested(self) -> JournalHead | None:
        """The newest ledger head that was vouched for; None before the first."""
        return self._attested()[0]

    def extend(self, old: JournalHead, new: JournalHead) -> None:
        """Move from the head that was vouched for to one that extends it; `old` is `JournalHead()` the first time.

        The caller has walked the ledger from old to new. Raises Refused(HISTORY_CHANGED) where `old` is not what was vouched
        for, or `new` is behind it.
        """
        stored, version = self._attested()
        if new == (stored or JournalHead()):
            return
        if old != (stored or JournalHead()) or new.position <= old.position:
            raise _history(stored, old, new)
        body = {"position": str(new.position), "head": new.hash.hex()}
        try:
            self._vault.write(_ATTESTED, body, cas=version)
        except CasConflict as error:
            raise _history(self.attested(), old, new) from error

    def _attested(self) -> tuple[JournalHead | None, int]:
        stored, version = self._vault.read(_ATTESTED)
        if stored is None:
            return None, version
        try:
            head = bytes.fromhex(str(stored["head"]))
        except (KeyError, ValueError) as error:
            raise InvalidInput(_ATTESTED, Rule.MALFORMED, "another shape", "position and head") from error
        return JournalHead(_integer(stored, "position", _ATTESTED), head), version

    def _create(self, path: str, body: dict[str, str]) -> object:
        """Write a document that must not exist; give what stands there afterwards."""
        try:
            self._vault.write(path, body, cas=0)
        except CasConflict:
            return self._vault.read(path)[0]
        return body


def _same_binding(index: int, stored: object, wanted: dict[str, str]) -> None:
    if stored is None or stored == wanted:
        return
    bound = stored if isinstance(stored, dict) else {}
    rule = Rule.ADDRESS_MISMATCH if bound.get("customer") == wanted["customer"] else Rule.INDEX_BOUND
    raise Refused([Refusal(rule, index=index, asked=wanted, bound=bound)])


def _same_claim(customer: str, stored: object, wanted: dict[str, str]) -> None:
    if stored is None or stored == wanted:
        return
    raise Refused([Refusal(Rule.INDEX_BOUND, customer=customer, asked=wanted, bound=stored)])


def _history(stored: JournalHead | None, old: JournalHead, new: JournalHead) -> Refused:
    told = {"attested": stored, "old": old, "new": new}
    return Refused(
        [Refusal(Rule.HISTORY_CHANGED, **{k: f"{h.position}:{h.hash.hex()}" if h else "" for k, h in told.items()})]
    )


def _integer(stored: object, name: str, where: str) -> int:
    value = stored.get(name) if isinstance(stored, dict) else None
    if not isinstance(value, str) or not value.isdecimal():
        raise InvalidInput(f"{where}.{name}", Rule.MALFORMED, repr(value), "a decimal integer in a string")
    return int(value)
