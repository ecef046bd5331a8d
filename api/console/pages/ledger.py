# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ledger: every entry with what made it true, a customer's statement, and what stands in suspense.

Nothing is booked here by a session: what leaves suspense is a manual entry that people sign one by one, judged where it is recorded.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, Query
from starlette.responses import RedirectResponse, Response

from api.console.desk import At, Desk, Posted
from api.console.drafts import ask_about, find_draft, sign_draft
from api.console.registry import Page
from api.console.sheets import attachment, cells
from api.console.transfer_view import rows
from custody.flows import gathering
from custody.flows.bookkeeping import record_manual
from custody.flows.gathering import Gathering
from custody.flows.ports import NEWEST, UnitOfWork
from custody.rules.amounts import Amount, Asset
from custody.rules.errors import InvalidInput
from custody.rules.ledger import Account, AccountKind, JournalEntry, Posting, entry_to_json
from custody.rules.origins import Executed, Hold, Release, Reversal
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import ManualEntry, ManualPosting, Settlement
from custody.rules.signatures import Signed

router = APIRouter()
PAGE = Page("ledger", "/ledger", "Ledger", router, 50)
ROWS: Final = 25
_CHUNK: Final = 500
_SUSPENSE_MOST: Final = 500
_SEE_OTHER: Final = 303
_OWN: Final = (AccountKind.CUSTOMER_AVAILABLE, AccountKind.CUSTOMER_HELD)
DONE: Final = {
    "drafted": "Drafted. It books nothing before enough people signed it and somebody hands it in.",
    "signed": "Your signature is kept beside the draft.",
    "booked": "Booked.",
}
_Name = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True)
class Line:
    """One entry: what made it true, in words and with a link to it, and its lines."""

    recorded: JournalEntry
    told: str
    link: str

    @property
    def postings(self) -> Sequence[Posting]:
        """Its lines."""
        return self.recorded.entry.postings


@router.get("/ledger")
def get_ledger(desk: At, before: Annotated[int, Query(ge=1, le=NEWEST)] = NEWEST, account: _Name = "") -> Response:
    """A page of entries, the newest first; of one account where it is named."""
    asked = [Account.parse(account.strip())] if account.strip() else []
    lines, older = desk.store.read(lambda work: _page(work, before, asked))
    head = desk.store.read(lambda work: work.journal.head())
    return desk.show(
        "ledger.html",
        lines=lines,
        older=older,
        first=before == NEWEST,
        account=account,
        head=head,
        customer="",
        labels=_labels(desk),
    )


@router.get("/ledger/export")
def get_export(desk: At) -> Response:
    """Every entry as a line of JSON, oldest first, with the hashes that chain them; read page by page as it is sent."""

    def told() -> Iterator[str]:
        after = 0
        while page := _after(desk, after):
            for each in page:
                row = {"position": each.position, "recorded_at": each.recorded_at, "previous": each.previous.hex()}
                yield json.dumps({**row, "hash": each.hash.hex(), **entry_to_json(each.entry)}) + "\n"
            after = page[-1].position

    return attachment(told(), "ledger.jsonl")


@router.get("/ledger/suspense")
def get_suspense(desk: At, done: str = "") -> Response:
    """What arrived and is owed to nobody yet, by chain event, and the entries that people are signing about it."""

    def read(work: UnitOfWork) -> tuple[Sequence[tuple[Account, Asset, int]], list[Gathering[ManualEntry]]]:
        drafts = gathering.drafts(work, desk.roster, ManualEntry, desk.now)
        open_ones = [draft for draft in drafts if not _is_booked(work, draft)]
        return work.listing.balances(AccountKind.SUSPENSE, _SUSPENSE_MOST), open_ones

    events, drafts = desk.store.read(read)
    return desk.show(
        "suspense.html",
        events=events,
        drafts=drafts,
        most=_SUSPENSE_MOST,
        needed=desk.roster.version.thresholds.manual_entry,
        done=DONE.get(done, ""),
    )


@router.post("/ledger/suspense")
def post_draft(
    desk: Posted,
    event: Annotated[str, Form(max_length=300)],
    asset: Annotated[str, Form(max_length=20)],
    amount: Annotated[str, Form(max_length=100)],
    customer: Annotated[str, Form(max_length=200)],
    reason: Annotated[str, Form(max_length=400)],
) -> Response:
    """Draft an entry out of one event's suspense to a customer, for people to sign."""
    desk.check_decides()
    moved = Amount.parse(desk.kernel.assets.get(asset), amount.strip())
    source = Account.parse(event)
    if source.kind is not AccountKind.SUSPENSE or source.is_whole_kind:
        raise InvalidInput("event", Rule.MALFORMED, repr(event), "suspense:EVENT, as this page lists it")
    if not reason.strip():
        raise InvalidInput("reason", Rule.MALFORMED, "nothing", "why these coins are this customer's; it is signed")
    known = desk.store.read(lambda work: work.customers.is_known(customer))
    if not known:
        raise Refused([Refusal(Rule.UNKNOWN_CUSTOMER, customer=customer)])
    postings = (
        ManualPosting(str(source), asset, "debit", moved.units),
        ManualPosting(str(Account(AccountKind.CUSTOMER_AVAILABLE, customer)), asset, "credit", moved.units),
    )
    name = f"suspense-{desk.now}-{desk.person.id}"
    message = ManualEntry(name, reason.strip(), postings)
    digest = gathering.draft(desk.store, desk.roster, message, desk.person.id, desk.now)
    return RedirectResponse(f"/ledger/manual/{digest.hex()}?done=drafted", _SEE_OTHER)


@router.get("/ledger/manual/{digest}")
def get_manual(desk: At, digest: str, done: str = "") -> Response:
    """One draft: what it would book, who signed it, who is still needed, and one's own signature."""
    found = find_draft(desk, ManualEntry, digest)
    needed = desk.roster.version.thresholds.manual_entry
    return desk.show(
        "manual.html",
        found=found,
        postings=[_amount(desk, each) for each in found.signed.message.postings],
        fields=rows(found.signed.message),
        missing=max(0, needed - len(found.people)),
        booked=desk.store.read(lambda work: _is_booked(work, found)),
        ask=ask_about(desk, found),
        done=DONE.get(done, ""),
    )


@router.post("/ledger/manual/{digest}/sign")
def post_signature(
    desk: Posted, digest: str, shown: Annotated[str, Form(alias="digest")], answer: Annotated[str, Form()]
) -> Response:
    """Add one's signature to a draft."""
    desk.check_decides()
    found = find_draft(desk, ManualEntry, digest)
    sign_draft(desk, ManualEntry, found, shown, answer)
    return RedirectResponse(f"/ledger/manual/{digest}?done=signed", _SEE_OTHER)


@router.post("/ledger/manual/{digest}/carry")
def post_carry(desk: Posted, digest: str) -> Response:
    """Hand in a draft that enough people signed: the same rules as everywhere judge it, whoever presses the button."""
    desk.check_decides()
    found = find_draft(desk, ManualEntry, digest)
    recorded = record_manual(desk.store, desk.roster, found.signed, desk.kernel.assets, desk.now)
    return RedirectResponse(f"/ledger/{recorded.position}?done=booked", _SEE_OTHER)


@router.get("/ledger/customers/{customer}")
def get_customer(desk: At, customer: str, before: Annotated[int, Query(ge=1, le=NEWEST)] = NEWEST) -> Response:
    """A customer's statement: what they have, what is held back, and the entries that made it so."""
    accounts = _accounts(desk, customer)

    def read(work: UnitOfWork) -> tuple[list[tuple[Asset, int, int]], tuple[list[Line], int]]:
        held = [
            (asset, work.journal.balance(accounts[0], asset), work.journal.balance(accounts[1], asset))
            for asset in desk.kernel.assets
        ]
        return [row for row in held if row[1] or row[2]], _page(work, before, accounts)

    balances, (lines, older) = desk.store.read(read)
    return desk.show(
        "ledger.html",
        lines=lines,
        older=older,
        first=before == NEWEST,
        account="",
        customer=customer,
        balances=balances,
        own={str(account) for account in accounts},
        labels=_labels(desk),
    )


@router.get("/ledger/customers/{customer}/statement.csv")
def get_statement(desk: At, customer: str) -> Response:
    """Every line of a customer's accounts as CSV, the newest first: amounts in the asset's own unit, every digit."""
    accounts = _accounts(desk, customer)
    names = {str(account) for account in accounts}

    def sheet() -> Iterator[str]:
        yield cells("position", "recorded_at", "what", "account", "change", "asset", "entry_hash")
        before = NEWEST
        while page := _before(desk, before, accounts):
            for each in page:
                for posting in each.entry.postings:
                    if str(posting.account) in names:
                        sign = "" if posting.side is posting.account.kind.side else "-"
                        told = (_told(each)[0], str(posting.account), sign + posting.amount.decimal)
                        yield cells(
                            each.position, each.recorded_at, *told, posting.amount.asset.symbol, each.hash.hex()
                        )
            before = page[-1].position

    return attachment(sheet(), "statement.csv")


@router.get("/ledger/{position}")
def get_entry(desk: At, position: int, done: str = "") -> Response:
    """One entry whole, with the documents or the block that it rests on."""
    recorded = desk.store.read(lambda work: work.journal.get(position))
    if recorded is None:
        raise Refused([Refusal(Rule.NO_ROUTE, path=f"/ledger/{position}", want="a position of the journal")])
    origin = json.dumps(entry_to_json(recorded.entry)["origin"], indent=1)
    return desk.show("entry.html", line=_line(recorded), origin=origin, done=DONE.get(done, ""))


def _after(desk: Desk, position: int) -> Sequence[JournalEntry]:
    return desk.store.read(lambda work: work.journal.read(position, _CHUNK))


def _before(desk: Desk, position: int, accounts: Sequence[Account]) -> Sequence[JournalEntry]:
    return desk.store.read(lambda work: work.listing.entries(position, _CHUNK, accounts))


def _page(work: UnitOfWork, before: int, accounts: Sequence[Account]) -> tuple[list[Line], int]:
    found = work.listing.entries(before, ROWS, accounts)
    return [_line(each) for each in found], found[-1].position if len(found) == ROWS and found[-1].position > 1 else 0


def _labels(desk: Desk) -> dict[str, str]:
    """What people call the wallets, beside the names that count."""
    return {str(wallet.account): wallet.certificate.label for wallet in desk.kernel.inventory}


def _line(recorded: JournalEntry) -> Line:
    return Line(recorded, *_told(recorded))


def _told(recorded: JournalEntry) -> tuple[str, str]:
    """What made an entry true, and where that can be looked at."""
    origin = recorded.entry.origin
    if isinstance(origin, Hold):
        return f"hold for {origin.intent.purpose.replace('_', ' ')}", f"/transfers/{origin.intent.id}"
    if isinstance(origin, Release):
        return "hold released", f"/ledger/{origin.hold}"
    if isinstance(origin, Reversal):
        return f"reversal of entry {origin.entry}: a reorg took its block back", f"/ledger/{origin.entry}"
    if isinstance(origin, Executed):
        return f"{'void' if origin.void else 'payout'} in block {origin.height} of {origin.chain}", ""
    if isinstance(origin, Signed):
        message = origin.message
        if isinstance(message, Settlement):
            return f"settlement of {len(message.trades)} trades by {message.client}", ""
        return f"entry that people signed: {message.reason}", ""
    return f"deposit in block {origin.height} of {origin.chain}", "/deposits"


def _accounts(desk: Desk, customer: str) -> list[Account]:
    if not desk.store.read(lambda work: work.customers.is_known(customer)):
        raise Refused([Refusal(Rule.UNKNOWN_CUSTOMER, customer=customer)])
    return [Account(kind, customer) for kind in _OWN]


def _is_booked(work: UnitOfWork, found: Gathering[ManualEntry]) -> bool:
    """Whether an entry of this id took from a chain event's suspense, which few entries ever touch: an id is recorded once."""
    events = [Account.parse(each.account) for each in found.signed.message.postings]
    taken = work.listing.entries(
        NEWEST, _CHUNK, [account for account in events if account.kind is AccountKind.SUSPENSE]
    )
    origins = (each.entry.origin for each in taken)
    return any(isinstance(o, Signed) and getattr(o.message, "id", "") == found.signed.message.id for o in origins)


def _amount(desk: Desk, posting: ManualPosting) -> tuple[str, str, Amount]:
    return posting.side, posting.account, Amount(desk.kernel.assets.get(posting.asset), posting.units)
