# SPDX-License-Identifier: AGPL-3.0-or-later
"""How the journal ended each hold, against what its intent was attested on (TRUST.md, "One anchor per payout").

Once a first signature was asked for, only the final consumption of the anchor frees a hold. The database cannot know that one was
asked for: a worker that lies records no permit, lets the customer cancel in good faith, and sends the signed payout afterwards. The
attestor knows, since it bound the intent to its anchor before anybody signed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from custody.rules.intents import Anchor
from custody.rules.origins import Executed, Release
from custody.rules.refusals import Refusal, Rule

BoundTo = Callable[[Collection[bytes]], Mapping[bytes, Anchor]]
"""Of these intents, those that were ever attested, each with its one anchor."""


@dataclass(frozen=True, slots=True)
class End:
    """The entry at a position ended an intent's hold: by the consumption of an anchor, or by a release (None)."""

    position: int
    intent: bytes
    by: Anchor | None


@dataclass(slots=True)
class Ends:
    """Ends of holds in the order of the journal; `paid` is what the final transaction on each anchor paid, nothing for a void.

    That an anchor was consumed as an entry says is the audit's to ask of the chain, before `check`.
    """

    of: list[End] = field(default_factory=list)
    paid: dict[Anchor, frozenset[bytes]] = field(default_factory=dict)
    released: set[bytes] = field(default_factory=set)

    def note(self, position: int, origin: Release | Executed) -> None:
        """Take one audited entry in."""
        if isinstance(origin, Release):
            self.of.append(End(position, origin.intent, None))
            self.released.add(origin.intent)
            return
        self.of += [End(position, intent, origin.anchor) for intent in origin.intents]
        self.paid[origin.anchor] = frozenset() if origin.void else frozenset(origin.intents)

    def undo(self, position: int, origin: Executed) -> None:
        """A reorg took back the block of the entry at a position: it ended nothing, and its anchor may pay again."""
        self.of = [end for end in self.of if end.position != position]
        self.paid.pop(origin.anchor, None)

    def check(self, vouched: int, bound_to: BoundTo) -> Iterator[Refusal]:
        """What ended a hold after the position that was vouched for, though its anchor may still pay the intent, or did.

        An intent that was never attested ends as it likes. One that was ends with its own anchor, or in any way once that anchor was
        finally consumed without paying it: by a void, or by another payload.
        """
        new = [*takewhile(lambda end: end.position > vouched, reversed(self.of))][::-1]
        bound = bound_to({end.intent for end in new}) if new else {}
        for end in new:
            anchor = bound.get(end.intent)
            if anchor is None or end.by == anchor or self._is_dead(end.intent, anchor):
                continue
            told = {"position": end.position, "intent": end.intent.hex(), "anchor": anchor.reference}
            if end.by is None:
                want = "no release, until a final transaction of its anchor did not pay it"
                yield Refusal(Rule.SIGNATURE_ASKED, **told, wallet=anchor.wallet.hex(), want=want)
            else:
                yield Refusal(Rule.INTENT_BOUND, **told, wallet=anchor.wallet.hex(), got=end.by.reference)

    def may_still_pay(self, intent: bytes, anchor: Anchor) -> bool:
        """Whether its hold was released though nothing shows that its anchor's final transaction did not pay it."""
        return intent in self.released and not self._is_dead(intent, anchor)

    def _is_dead(self, intent: bytes, anchor: Anchor) -> bool:
        paid = self.paid.get(anchor)
        return paid is not None and intent not in paid
