# SPDX-License-Identifier: AGPL-3.0-or-later
"""What went wrong elsewhere, in the words of the list that this project began with, and what of a run would show it here.

A name on the right is an invariant, something that happens in runs, a planted bug, or a file of tests where no run can show it.
"""

from collections.abc import Mapping
from typing import Final

INVARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "coverage per asset": ("covered_when_signed",),
    "operational coins never count": ("covered_when_signed",),
    "customer → operational = signed accruals only": ("customers_coins_stay_customers",),
    "a signature ⇒ ≥M distinct eligible approvers, same digest, policy in force, not expired, initiator out": (
        "people_or_caps",
        "a_payment_has_its_permit_and_its_quorum",
        "who left the roster counts",
        "push_policy",
    ),
    "signed bytes decode exactly to the digest, by a second decoder": ("tests/unit/test_bitcoin_second.py",),
    "one effective settlement an intent": (
        "an_intent_is_paid_at_most_once",
        "one_anchor_an_intent",
        "one_anchor_signed",
    ),
    "no customer balance below zero and every entry sums to zero": ("nobody_below_zero", "entries_sum_to_zero"),
    "each deposit credits at most once and an orphaned one nets to zero": (
        "a_deposit_credits_once",
        "an_orphaned_deposit_nets_to_zero",
    ),
    "nothing signed leaves hot above its cap": ("nothing_signed_fills_hot_above_its_cap",),
    "overflow is proposed within one cycle": ("tests/unit/test_rebalancing.py",),
    "limits hold at signing, not only at proposal": ("people_or_caps",),
    "acknowledged writes survive any single fault": ("the_hash_chain_holds", "what_was_acknowledged_is_there"),
    "every transfer ends or says why it waits": (
        "a_transfer_says_what_it_waits_for",
        "everything_ends_or_waits_for_people",
    ),
}
"""Checked after every step, restart and reorg."""

INCIDENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "FTX: an account with a negative balance; customers' coins to the company": (
        "nobody_below_zero",
        "customers_coins_stay_customers",
    ),
    "Mt. Gox: changed txid, customer claims non-payment": ("an_intent_is_paid_at_most_once", "stored_before_sent"),
    "Mt. Gox: siphoned behind the API": ("drain", "covered_when_signed"),
    "Quadriga: a credit without a deposit": ("credits_are_final", "lie", "phantom deposit vouched for"),
    "Quadriga: key-holders vanish": ("seat_turns", "a_payment_has_its_permit_and_its_quorum"),
    "Coincheck: hot wallet funded above its cap": ("nothing_signed_fills_hot_above_its_cap",),
    "Bitfinex: limits raised by one": ("push_policy", "tests/unit/test_roster.py"),
    "Bybit, WazirX: another payload than was approved": ("replay", "tests/unit/test_evm_decode.py"),
    "Radiant: fake failure, please sign again": ("one_anchor_signed", "lost answer counted as failure"),
    "Ronin: an expired grant is used": ("next_roster", "who left the roster counts"),
    "DMM: a pending destination is edited": ("damage", "damaged row believed"),
    "fee blow-ups": ("one_anchor_an_intent", "tests/unit/test_bumping.py"),
    "CVE-2020-14199: a PSBT lies about input amounts": ("tests/unit/test_bitcoin_decode.py",),
    "Flexcoin, Poloniex: withdrawals in parallel": ("side_by_side", "nobody_below_zero"),
    "time-out retry: broadcast worked, answer lost": ("lose_answers", "rebuilt after a lost answer"),
    "ETC 51 %: deposit, deeper reorg, withdraw": ("double_spend", "reorg ignored", "second credit after a reorg"),
    "RBF deposit: unconfirmed, replaced": ("credits_are_final", "deposit credited below finality"),
    "replay on another chain, wallet or nonce": ("replay", "one_anchor_signed"),
    "compromised seat": ("seat_turns", "a_payment_has_its_permit_and_its_quorum"),
    "rogue administrator: no row authorises anything": ("damage", "a_damaged_row_moves_nothing"),
}
"""Who had it, and what shows that it cannot happen here."""

FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "kill −9 at each await and commit": ("dies before", "dies after"),
    "database rollback or fail-over": ("lose_database", "rolled-back database vouched for"),
    "clock ±1 h and ±1 y": ("jump_clock",),
    "Vault sealed, slow, 500": ("call lost", "answer lost", "slow"),
    "reorg 1 … finality+1": ("reorg", "double_spend"),
    "node lying, stale": ("lie", "lag"),
    "mempool eviction and fee spike": ("forget", "slow_finality"),
    "one seat lost or hostile": ("seat_turns",),
    "stale backup restored": ("roll_seat_back", "lose_database"),
    "a worker paused past its lease": ("slow", "fence dropped"),
}
"""What is injected into runs, by the list's words. Disk full, 10× load and real restarts need the real parts: tests/devnet."""
