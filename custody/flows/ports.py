# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the flows need from the world. Small ports; adapters translate errors with operands (STYLE.md, rule 10).

Every port raises `Unavailable` where the outside does not answer; unknown is never a value.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from custody.rules.amounts import Asset
from custody.rules.approvals import Approval
from custody.rules.certificates import DepositAddress, Enrolment, SeatHead, SeatKey, WalletCertificate
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.in_flight import Attested, Flight
from custody.rules.intents import Anchor, Rejection, TransferIntent
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, JournalHead
from custody.rules.origins import ChainProof, Executed
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Payment,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    UnsignedPayout,
    none_credited,
)
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import SafeState, SeatPosition, Statement
from custody.rules.transfers import Permit, Reserved, Status, SubStatus, Transfer
from custody.rules.wallets import Address, Chain

T = TypeVar("T")
Clock = Callable[[], int]
"""Seconds since 1970."""


class ChainView(Protocol):
    """Read-only eyes on one chain through one node."""

    @property
    def chain(self) -> Chain:
        """The chain that the node was asked about and confirmed to be on."""
        ...

    def head(self) -> BlockRef:
        """The newest block."""
        ...

    def final(self) -> BlockRef:
        """The newest final block (EVM: `finalized`; Bitcoin: the registry's confirmations deep)."""
        ...

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the head."""
        ...

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Every arrival at watched addresses in canonical blocks first..last, both included, ordered by height.

        Each proof names its block's hash; a caller that follows the chain compares them with the blocks it read.
        """
        ...

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Check a proof again at its source: block canonical, event there, balance change as stated. None if it holds."""
        ...

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Base units of one asset that these addresses hold at a block, together."""
        ...


class Branch(Enum):
    """The two branches of a wallet's addresses: paid by others, and paid to itself (Bitcoin change)."""

    RECEIVE = 0
    CHANGE = 1


class AddressDeriver(Protocol):
    """Addresses from a certificate alone: no row, no server."""

    def derive(self, certificate: WalletCertificate, branch: Branch, index: int) -> Address:
        """The address at an index: a deposit Safe on EVM, a script's address on Bitcoin. Raises InvalidInput: no such branch."""
        ...

    def main(self, certificate: WalletCertificate) -> Address | None:
        """The Safe on EVM; None on Bitcoin, where a wallet has no one address."""
        ...


@runtime_checkable
class SafeReader(Protocol):
    """What only an EVM chain can tell: the state of a certified Safe."""

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """Owners, threshold, modules, guard, handler, singleton and nonce at a block."""
        ...


@runtime_checkable
class PayoutReader(Protocol):
    """What a view can tell about payouts, for an audit; a view that cannot leaves their entries unproven."""

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """Check at the source that this canonical transaction consumed the anchor. None if it holds.

        It paid exactly these intents, brought our wallets what is told and cost this fee; a void paid nobody. `holding_of` says
        whose an address is, from certificates: without it, a void in a stranger's Safe would free holds of ours.
        """
        ...


@runtime_checkable
class OutpointReader(Protocol):
    """What only a Bitcoin chain can tell: whether an output was spent."""

    def is_spent(self, outpoint: str, addresses: Collection[Address], at: BlockRef) -> bool | None:
        """Whether a canonical block up to this one spends `txid:vout`; None where none of them pays it to these addresses."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    """One journal row as an auditor finds it: the entry where it can be read, and what is damaged about the row itself.

    Damage is: unreadable or not canonical JSON, lines or identities kept beside it that differ from it.
    """

    position: int
    recorded: JournalEntry | None
    damage: tuple[Refusal, ...]


class Journal(Protocol):
    """The one append-only journal with its running balances."""

    def head(self) -> JournalHead:
        """The newest position and hash."""
        ...

    def append(self, entry: Entry, recorded_at: int) -> JournalEntry:
        """Record an entry and move the balances, in this transaction.

        Raises Refused: insufficient_balance (nobody goes below zero), already_recorded (same chain event, settlement or
        manual entry id, trade, or reversal of the same position).
        """
        ...

    def read(self, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """Entries with position > after, ascending, as stored (hashes not recomputed). Raises InvalidInput on a damaged row."""
        ...

    def get(self, position: int) -> JournalEntry | None:
        """One entry. Raises InvalidInput on a damaged row."""
        ...

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[Examined]:
        """Rows with position > after, ascending, for an audit: a damaged one is told, never raised (hashes not recomputed)."""
        ...

    def balance(self, account: Account, asset: Asset) -> int:
        """Running balance on the account's natural side, never negative; zero if the account is not known."""
        ...

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """Kept total over all accounts of a kind; never summed over customers at read time."""
        ...

    def balances(self) -> Iterator[tuple[Account, Asset, int]]:
        """Every running balance that is not zero."""
        ...

    def totals(self) -> Iterator[tuple[AccountKind, Asset, int]]:
        """Every kept total that is not zero."""
        ...

    def matured_fees(self, asset: Asset, recorded_by: int) -> int:
        """Accrued fees recorded at or before a time, less everything swept since; never below zero.

        A clock that ran back ripens nothing early: an entry counts with the latest time recorded up to it.
        """
        ...

    def settled_since(self, account: Account, since: int) -> Mapping[Asset, int]:
        """Base units by asset that settlements recorded after a time credited to an account: fresh inflow."""
        ...


@dataclass(frozen=True, slots=True)
class Deposit:
    """A sighting as it stands. `position` is the journal entry that credited it, where there is one."""

    sighting: Sighting
    status: DepositStatus
    position: int | None


class Deposits(Protocol):
    """Sightings, and the blocks that each watcher has followed."""

    def followed(self, chain: Chain, height: int) -> bytes | None:
        """Hash of the block that was followed at a height; None where it was not, or has been forgotten."""
        ...

    def newest(self, chain: Chain) -> int | None:
        """The newest followed height, or None before the first."""
        ...

    def follow(self, blocks: Sequence[BlockRef], keep: int) -> None:
        """Record blocks as followed, in order; forget those more than `keep` below the newest."""
        ...

    def unfollow(self, chain: Chain, above: int) -> None:
        """Forget followed blocks above a height: a reorg took them back."""
        ...

    def record(self, sighting: Sighting) -> None:
        """Record as SEEN; a sighting known as ORPHANED or REVERSED becomes SEEN again; any other stays as it is."""
        ...

    def at_or_above(self, chain: Chain, height: int) -> Sequence[Deposit]:
        """Deposits in blocks at or above a height, ascending."""
        ...

    def waiting(self, chain: Chain, up_to: int) -> Sequence[Deposit]:
        """SEEN deposits in blocks up to a height, ascending."""
        ...

    def move(self, identity: str, to: DepositStatus, position: int | None = None) -> None:
        """Apply one legal move of DEPOSIT_MOVES; raises Refused otherwise."""
        ...

    def credited(self, chain: Chain, outpoints: Collection[str]) -> frozenset[str]:
        """Of these outpoints (`txid:vout`, Bitcoin), those whose deposit is CREDITED now."""
        ...

    def all(self) -> Sequence[Deposit]:
        """Every deposit, ascending by chain and height."""
        ...


class Customers(Protocol):
    """Customers and the addresses that are theirs."""

    def add(self, customer: str) -> None:
        """Raises Refused(already_exists)."""
        ...

    def ids(self) -> frozenset[str]:
        """Every customer."""
        ...

    def is_known(self, customer: str) -> bool:
        """Whether there is one of this id."""
        ...

    def next_index(self, wallet: bytes) -> int:
        """The lowest index of a wallet that no address uses."""
        ...

    def add_address(self, signed: Signed[DepositAddress]) -> None:
        """Record an attested binding; UNIQUE on (wallet, index), (chain, address), (wallet, customer)."""
        ...

    def addresses(self, chain: Chain | None = None) -> Sequence[Signed[DepositAddress]]:
        """Every attested binding, ascending by index."""
        ...

    def address_of(self, customer: str, wallet: bytes) -> Signed[DepositAddress] | None:
        """The binding of one customer at one wallet."""
        ...


class Documents(Protocol):
    """Mirror of signed documents. A mirror only: whoever reads one verifies its signatures again."""

    def put(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        """Store once; the same body again is fine, another body under the same key raises Refused(already_exists)."""
        ...

    def get(self, kind: str, key: str) -> Mapping[str, object] | None:
        """One document's JSON."""
        ...

    def all(self, kind: str) -> Sequence[Mapping[str, object]]:
        """Every document of a kind in the order they were stored."""
        ...


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolment and when this store first saw it, which is what its age counts from outside a seat."""

    enrolment: Signed[Enrolment]
    seen_at: int


class Enrolments(Protocol):
    """Mirror of signed enrolments. Whoever reads one verifies its signatures again."""

    def add(self, signed: Signed[Enrolment], at: int) -> None:
        """Record once; the same enrolment again is fine, and keeps its first sight."""
        ...

    def get(self, digest: bytes) -> Enrolled | None:
        """By the struct hash of the enrolment."""
        ...

    def at(self, chain: str, address: str) -> Sequence[Enrolled]:
        """Every enrolment of one address, the newest first."""
        ...

    def of(self, owner: str) -> Sequence[Enrolled]:
        """Every enrolment of one owner (`customer:ID` or `company`), the newest first."""
        ...

    def page(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Enrolled]]:
        """Enrolments with their numbers above `after`, ascending. Raises InvalidInput on a damaged row."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """One line of a transfer's history. `why` is what it waited for then, or why it ended."""

    at: int
    status: Status
    sub_status: SubStatus | None
    why: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that cannot be read, or that says another thing than the documents in it. It is told, and never moves.

    `name` is the intent's digest of a transfer, the anchor of a permit; `why` says what differs.
    """

    name: str
    why: Refusal
    anchor: Anchor | None = None


class Transfers(Protocol):
    """Transfers, the signed documents that people added to them, and what was pinned for signing."""

    def add(self, transfer: Transfer, scope: str, key: str, body: bytes) -> None:
        """Record a new one under an idempotency key of a scope, with the hash of what was asked.

        Raises Refused: idempotency_key_with_another_body, proposal_bound_to_another_intent, already_recorded (the intent).
        """
        ...

    def asked(self, scope: str, key: str) -> tuple[bytes, Transfer] | None:
        """What was asked under a key, as a hash, and the transfer that it became."""
        ...

    def get(self, digest: bytes) -> Transfer | None:
        """By the intent's digest. Raises InvalidInput where the row differs from the documents in it."""
        ...

    def find(self, transfer: str) -> Transfer | None:
        """By the intent's id."""
        ...

    def of_proposal(self, proposal: bytes) -> Transfer | None:
        """What a proposal became, by its struct hash."""
        ...

    def page(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer]]:
        """Transfers with their numbers above `after`, ascending; of every account, wallet and status unless one is named."""
        ...

    def examine(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer | Damaged]]:
        """As `page`, which raises InvalidInput on a damaged row: here it is told, and everything else is read on."""
        ...

    def update(self, transfer: Transfer, was: Transfer, why: str = "") -> None:
        """Record a move; documents, value and creation never change. Raises Refused where `was` is not how it stands."""
        ...

    def history(self, digest: bytes) -> Sequence[Moved]:
        """Every status that a transfer had, oldest first."""
        ...

    def expiring(self, now: int, limit: int = 100) -> Sequence[bytes]:
        """Digests of transfers that are past their expiry and for which no signature may have been asked, oldest first."""
        ...

    def approve(self, approval: Approval, at: int) -> None:
        """Append; the same again is fine. Raises Refused(one_signer_twice) for another by the same person."""
        ...

    def approvals(self, digest: bytes) -> Sequence[Approval]:
        """Every approval of an intent, in the order they came; whoever counts verifies them again."""
        ...

    def reject(self, person: str, rejection: Signed[Rejection], at: int) -> None:
        """Append; one for each intent and person."""
        ...

    def rejections(self, digest: bytes) -> Sequence[Signed[Rejection]]:
        """Every no to an intent."""
        ...

    def reserved(self, account: str, wallet: bytes, initiator: str, now: int, besides: bytes = b"") -> Reserved:
        """What live transfers take up: pending ones whatever their age, completed ones within the window. `besides` not counted."""
        ...

    def swept(self, asset: str, now: int, besides: bytes = b"") -> int:
        """Base units of fee sweeps within 24 hours, pending ones whatever their age."""
        ...

    def heading_to(self, destinations: Collection[str], asset: str, besides: bytes = b"") -> int:
        """Base units of one asset that live, unfinished transfers will bring to these addresses."""
        ...

    def leaving(self, wallet: bytes, asset: str, besides: Collection[bytes] = ()) -> int:
        """Base units of one asset that permitted, unfinished transfers will take out of a wallet, maximum fees not counted."""
        ...

    def permit(self, permit: Permit) -> None:
        """Record a permit. Raises Refused where its anchor, an outpoint or an intent belongs to another."""
        ...

    def permit_of(self, digest: bytes) -> Permit | None:
        """The permit that carries an intent."""
        ...

    def permitted(self) -> Sequence[Permit]:
        """Permits with a transfer that is not at its end, oldest first. Raises InvalidInput on a damaged row."""
        ...

    def examine_permitted(self) -> Sequence[Permit | Damaged]:
        """As `permitted`; a damaged row is told, and everything else is read on."""
        ...

    def taken(self, chain: str, wallet: bytes) -> frozenset[str]:
        """References that unfinished permits of a wallet pin."""
        ...

    def keep(self, envelope: Envelope, at: int) -> None:
        """Append signed bytes of a permit's anchor before they go out; the same again is fine. Raises Refused(no such anchor)."""
        ...

    def kept(self, anchor: Anchor) -> Sequence[Envelope]:
        """Every envelope of an anchor, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """Whose turn something is. `token` grows with every turn and never comes back; `until` is seconds since 1970."""

    name: str
    holder: str
    token: int
    until: int


class Leases(Protocol):
    """Turns among processes, with fencing: time only says who may begin, the token says whose writes still count."""

    def acquire(self, name: str, holder: str, now: int, seconds: int) -> Lease:
        """The lease as it stands afterwards: the caller's, with a new token, where it was free, lapsed or its own; else the other's.

        Raises InvalidInput for an empty name or holder and for no time at all.
        """
        ...

    def check(self, lease: Lease) -> None:
        """Raises Unavailable where somebody else had a turn since, or it was given back. A lapsed one that nobody took still holds."""
        ...

    def renew(self, lease: Lease, now: int, seconds: int) -> Lease:
        """The same turn for longer, never for less. Raises Unavailable as `check`."""
        ...

    def release(self, lease: Lease) -> None:
        """Give it back, so that nobody has to wait; one that was lost is left alone."""
        ...


class UnitOfWork(Protocol):
    """One transaction's worth of the store."""

    @property
    def journal(self) -> Journal:
        """The journal and its balances."""
        ...

    @property
    def deposits(self) -> Deposits:
        """Sightings and followed blocks."""
        ...

    @property
    def customers(self) -> Customers:
        """Customers and their addresses."""
        ...

    @property
    def documents(self) -> Documents:
        """The mirror of signed documents."""
        ...

    @property
    def transfers(self) -> Transfers:
        """Transfers, approvals, permits and signed bytes."""
        ...

    @property
    def enrolments(self) -> Enrolments:
        """The mirror of enrolments."""
        ...

    @property
    def leases(self) -> Leases:
        """Whose turn it is among several workers."""
        ...


class Store(Protocol):
    """Transactions as functions, so that a store may put many into one commit."""

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one serialisable write transaction and commit; on any exception nothing of it remains.

        The work may run more than once (a serialisation failure is tried again), so it touches nothing but its unit of work.
        """
        ...

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one consistent snapshot that cannot write."""
        ...


class SeatPort(Protocol):
    """One seat, wherever it is hosted: a process, later the secrets engine. Keys stay behind it."""

    @property
    def name(self) -> str:
        """The seat's id in the roster."""
        ...

    def identity(self) -> Key:
        """The seat's Ed25519 identity key, made once, inside its own OpenBao."""
        ...

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign a version that names this seat's identity key; before pinning only version 1, after it only a successor."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once, after checking that everybody named signed it."""
        ...

    def make_wallet_key(self, label: str, chain: Chain) -> SeatKey:
        """Make the one key for a label and chain, or give the same again; never a key for two labels."""
        ...

    def accept(self, signed: Signed[WalletCertificate]) -> Signed[SeatHead]:
        """Accept a certificate once: quorum of its pinned roster, its own key in it, the script or Safe re-derived."""
        ...

    def head(self) -> Signed[SeatHead]:
        """The newest head of the seat's own journal, signed."""
        ...

    def admit_policy(self, signed: Signed[PolicyActivation], documents: Mapping[str, object]) -> Signed[SeatHead]:
        """Put a bundle in force: its owners' activation, and its documents, which the seat reads and hashes by itself."""
        ...

    def sign(self, request: Request) -> SeatSignatures:
        """Decode, decide, record, sign; an identical request gets identical signatures. Raises Refused with every reason."""
        ...

    def freeze(self, signed: Signed[Freeze]) -> Signed[SeatHead]:
        """Stop a scope for hours by one person's signature; anyone may carry it."""
        ...

    def unfreeze(self, signed: Signed[Unfreeze]) -> Signed[SeatHead]:
        """End a freeze early, by quorum and after its delay."""
        ...


class AddressBinder(Protocol):
    """The one thing of the attestor that issuing addresses needs."""

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """Bind an index to a customer for ever, after deriving the address from the certificate by itself."""
        ...


class AttestorPort(Protocol):
    """The attestor: own process, own nodes, own key, read-only ledger."""

    def identity(self) -> Key:
        """Its Ed25519 key."""
        ...

    def sign_roster(self, version: RosterVersion) -> Signature:
        """As for a seat."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """As for a seat."""
        ...

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """Bind an index to a customer for ever, after deriving the address from the certificate by itself."""
        ...

    def statement(self) -> Signed[Statement]:
        """Read ledger and chains at one final height each, check history and origins, sign what was found."""
        ...

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """A statement that speaks for one payout: its anchor, and facts about exactly these intents, by their digests.

        Each intent is bound to this anchor for ever and in flight from now on. Without intents it names the anchor only, for a
        void or a rotation. Raises Refused with every reason, and Unavailable; then nothing is bound.
        """
        ...


class AttestorMemory(Protocol):
    """The attestor's own vault: its key, and every promise that must outlive it. Each is durable before it returns."""

    def identity(self) -> Key:
        """The attestor's Ed25519 key."""
        ...

    def sign(self, digest: bytes) -> Signature:
        """Sign a typed message's 32-byte digest."""
        ...

    def pinned(self) -> Signed[RosterVersion] | None:
        """Genesis as it was pinned, or None before."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once. Raises Refused(WRONG_GENESIS) where another is pinned."""
        ...

    def see_roster(self, version: int, digest: bytes) -> None:
        """Note the newest roster version seen. Raises Refused(ROSTER_OLDER) for an older one, or another of the same number."""
        ...

    def bind(self, wallet: bytes, index: int, customer: str, address: str) -> None:
        """Bind an index to one customer for ever. The same again is fine. Raises Refused: INDEX_BOUND, ADDRESS_MISMATCH."""
        ...

    def next_sequence(self, at_least: int) -> int:
        """A number above every one given before."""
        ...

    def attested(self) -> JournalHead | None:
        """The newest ledger head that was vouched for, or None before the first."""
        ...

    def extend(self, old: JournalHead, new: JournalHead) -> None:
        """Vouch for a longer history. Raises Refused(HISTORY_CHANGED) where `old` is not what was vouched for."""
        ...

    def see_heads(self, heads: Collection[SeatPosition]) -> Sequence[SeatPosition]:
        """Note the newest head of each seat, never a lower one than was seen; gives every one known, by the seats' names."""
        ...

    def attest(self, payout: Sequence[Attested]) -> None:
        """Bind each intent to its one anchor for ever and count it in flight. The same again is fine.

        Raises Refused(INTENT_BOUND) with every intent that has another anchor; then nothing is bound.
        """
        ...

    def bound_to(self, digests: Collection[bytes]) -> Mapping[bytes, Anchor]:
        """Of these intents, those that were ever attested, each with its one anchor."""
        ...

    def flights(self) -> Sequence[Flight]:
        """Every attested intent that is in flight, and those that ended lately."""
        ...

    def land(self, intents: Collection[bytes], at: int) -> None:
        """Note that the anchor of these was finally consumed; those that ended more than a day before are no longer listed."""
        ...

    def unseen(self, digests: Collection[bytes]) -> Sequence[bytes]:
        """Those of them that were never seen."""
        ...

    def first_sight(self, digest: bytes, now: int) -> int:
        """When this was first seen; now, for ever, where it never was."""
        ...

    def offset(self) -> int:
        """Seconds that the statement clock was moved forward by; zero where it never was."""
        ...

    def advance(self, seconds: int) -> int:
        """Move the statement clock forward by a positive number of seconds; gives the new offset."""
        ...


class Anchors(Protocol):
    """The part of `PayoutChain` that authorization needs: what to pin before anything is built."""

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """A free anchor and everything else to pin for these payments. `taken` are references pinned by unfinished permits.

        On Bitcoin nothing is spent but what `credited` knows: a coin outside the books wedges them (EVM has no such choice).
        """
        ...


class PayoutChain(Anchors, Protocol):
    """Payouts on one chain: built, put together from signatures, sent and followed. Holds no key of a wallet.

    `wallet` is the wallet's name, `certificate` the one whose keys sign. Every method raises Unavailable where the node does
    not answer, and Refused with the rule where something must not go out.
    """

    @property
    def chain(self) -> Chain:
        """The chain that the node was confirmed to be on."""
        ...

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """What about the wallet on chain differs from its certificate; empty where nothing does."""
        ...

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """The whole transaction, simulated where the chain can; deterministic for one state of the chain."""
        ...

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """The anchor's canonical no-op. `outbid` is the fee of the variant that it has to replace, where one was sent."""
        ...

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """Check every signature against the certificate's keys and put M of them in place."""
        ...

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """The bytes to store and then to broadcast; a new envelope is made only where the last one is stale."""
        ...

    def broadcast(self, envelope: Envelope) -> None:
        """Send; the same bytes again are fine. Unavailable means that the outcome is unknown.

        Raises Refused(relayers_nonce_used_by_another_transaction): seal again; Refused(anchor_already_consumed): follow.
        """
        ...

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """What became of a payout, by every envelope of every variant of it. `since` is a height before the first broadcast."""
        ...


@runtime_checkable
class FeeBumper(Protocol):
    """What a chain can do for a payout that no block takes. A chain that cannot leaves it to patience, or to a void."""

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """Bitcoin: a variant of what was sent that pays what the node asks by now; None where that one does, and on EVM.

        Same coins in the same order, same payments; the fee grows out of the change. `maxima` is what each intent allows. Where the
        node asks for more than people approved it pays all that they did. Raises Refused: fee_above_intents_maximum,
        fee_above_bounds, insufficient_balance (no change to take it from).
        """
        ...

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """EVM: the same signed payout at the relayer's same nonce for a higher price; None where the last one pays enough.

        None on Bitcoin too, where nothing is put around a payout. Raises Refused: relayer_above_cap, anchor_already_consumed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prices:
    """Micro-USD of one whole unit of each asset, by symbol: the maximum of fresh sources, as they stood at one moment."""

    micro_usd: Mapping[str, int]

    def value(self, asset: Asset, units: int) -> int:
        """Micro-USD of so many base units, rounded up. Raises Unavailable where there is no price, or none above zero."""
        price = self.micro_usd.get(asset.symbol, 0)
        if price < 1:
            raise Unavailable(f"price of {asset}", "too few fresh sources")
        return -(-units * price // int(10**asset.decimals))


class PriceSource(Protocol):
    """Prices in USD. They only ever tighten: no price gates coverage."""

    def fresh(self, now: int) -> Prices:
        """What at least two signed, fresh sources agree to give, the maximum of each; an asset with fewer is left out."""
        ...


class Screening(Protocol):
    """What lists kept outside policy say about who is paid. Raises Unavailable where they cannot be asked."""

    def is_related(self, account: str, address: Address) -> bool:
        """Whether account or address belongs to an affiliate, an insider or a company of theirs."""
        ...

    def is_sanctioned(self, address: Address) -> bool:
        """Whether nothing may be paid there."""
        ...
