# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which coins a payout spends, what it costs, and who bears it. Pure: integers of satoshi and weight units.

The order of things, so that two workers with the same coins choose the same ones:
1. Coins that cost more to spend than they hold are left out (dust that somebody sent us must not raise a fee).
2. Branch and bound (Erhardt 2016, as in Bitcoin Core): a set whose effective value meets the target without change, within
   what change would have cost; the least waste wins, and it gives up after a fixed number of tries.
3. Else the largest first, with change; change too small to spend again goes to the fee.

While fees are low, small coins of the wallet may join a payout of the company's, whose change then holds them (`join`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from custody.rules.refusals import Refusal, Rule

TRIES: Final = 50_000
"""Steps of the search before the largest coins are taken instead."""
WEIGHT_MOST: Final = 400_000
"""Weight units of a transaction that nodes relay (Bitcoin Core, MAX_STANDARD_TX_WEIGHT)."""
CHANGE_LEAST: Final = 1_000
"""Satoshi below which change is not made: above dust (330 for P2WSH), so that it is worth spending again."""
JOINED_MOST: Final = 50
"""Small coins that join one payout at the most: each is one more previous transaction for every seat to read."""
_SIGNATURE: Final = 73
"""A pushed low-s DER signature with its sighash byte, at the most (BIP-66, BIP-146)."""
_P2WSH_OUTPUT: Final = 43
"""8 of value, 1 of length, 34 of script."""


@dataclass(frozen=True, slots=True)
class Coin:
    """A confirmed output of ours: `txid:vout`, satoshi, and where the wallet derives its script."""

    outpoint: str
    units: int
    branch: int
    index: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a transaction weighs: M of N in each input, and outputs of these script lengths."""

    m: int
    n: int
    outputs: tuple[int, ...]

    @property
    def input_weight(self) -> int:
        """One input with its whole witness (BIP-141): 41 bytes four times, the witness once."""
        script = 3 + 34 * self.n
        return 4 * 41 + 1 + 1 + self.m * _SIGNATURE + len_of_size(script) + script

    def weight(self, inputs: int, *, change: bool) -> int:
        """Weight units of the signed transaction."""
        outputs = sum(8 + len_of_size(script) + script for script in self.outputs) + _P2WSH_OUTPUT * change
        count = len(self.outputs) + change
        stripped = 8 + len_of_size(inputs) + len_of_size(count) + outputs
        return 4 * stripped + 2 + inputs * self.input_weight

    def vbytes(self, inputs: int, *, change: bool) -> int:
        """Virtual bytes of the signed transaction, rounded up."""
        return -(-self.weight(inputs, change=change) // 4)


@dataclass(frozen=True, slots=True)
class Selection:
    """Coins in the order in which they are spent (the first is the anchor), change (0: none) and the fee. Satoshi."""

    coins: tuple[Coin, ...]
    change: int
    fee: int
    vbytes: int


def select(
    coins: Sequence[Coin], amounts: Sequence[int], shape: Shape, rate: int, most: Callable[[int], int]
) -> Selection | Refusal:
    """Coins for these amounts at `rate` satoshi per virtual byte, or why there are none.

    `most` says what a transaction of so many virtual bytes may cost; where no change would cost more, change is made.
    """
    cost = -(-shape.input_weight * rate // 4)
    worth = [coin for coin in coins if coin.units > cost]
    ordered = sorted(worth, key=lambda coin: (-coin.units, coin.outpoint))
    paid = sum(amounts)
    need = paid + shape.vbytes(0, change=False) * rate
    room = rate * (_P2WSH_OUTPUT + -(-shape.input_weight // 4)) + CHANGE_LEAST
    exact = _branch_and_bound([coin.units - cost for coin in ordered], need, room)
    if exact is not None:
        found = settle(tuple(ordered[i] for i in exact), paid, shape, rate)
        if isinstance(found, Selection) and found.fee <= most(found.vbytes):
            return found
    return _largest(ordered, paid, shape, rate) or _too_poor(coins, worth, need + cost)


def settle(coins: tuple[Coin, ...], paid: int, shape: Shape, rate: int) -> Selection | Refusal:
    """Fee and change of a transaction that spends exactly these coins."""
    total = sum(coin.units for coin in coins)
    size = shape.vbytes(len(coins), change=True)
    if shape.weight(len(coins), change=True) > WEIGHT_MOST:
        return Refusal(Rule.TRANSACTION_TOO_LARGE, vbytes=size, inputs=len(coins), most=WEIGHT_MOST // 4)
    change = total - paid - size * rate
    spare = rate * -(-shape.input_weight // 4)
    if change >= CHANGE_LEAST + spare:
        return Selection(coins, change, size * rate, size)
    size = shape.vbytes(len(coins), change=False)
    fee = total - paid
    if fee < size * rate:
        return Refusal(Rule.INSUFFICIENT_BALANCE, confirmed=total, coins=len(coins), need=paid + size * rate)
    return Selection(coins, 0, fee, size)


def join(
    chosen: tuple[Coin, ...], small: Sequence[Coin], paid: int, shape: Shape, rate: int, most: Callable[[int], int]
) -> tuple[Coin, ...]:
    """Of these small coins, those that join the chosen ones in their payout: the smallest first, as many as its fee has room for.

    They end in its change. None that costs more than it holds joins, and the fee stays within half of `most`, so that rates may
    double before the payout is built, and it can be bumped afterwards. Nothing joins where no change would come of it.
    """
    cost = -(-shape.input_weight * rate // 4)
    ordered = sorted((coin for coin in small if coin.units > cost), key=lambda coin: (coin.units, coin.outpoint))
    for count in range(min(len(ordered), JOINED_MOST), 0, -1):
        joined = tuple(ordered[:count])
        found = settle(chosen + joined, paid, shape, rate)
        if isinstance(found, Selection) and found.change and 2 * found.fee <= most(found.vbytes):
            return joined
    return ()


def split_fee(fee: int, most: Sequence[int]) -> tuple[int, ...] | Refusal:
    """A fee in equal shares, none above its intent's maximum: what one cannot bear is borne by the others.

    Odd satoshi go to the first ones. Refused where the maxima together are less than the fee.
    """
    if fee > sum(most):
        return Refusal(Rule.MAXIMUM_FEE, fee=fee, most=sum(most))
    shares = [0] * len(most)
    left = fee
    while left:
        open_ones = [i for i, limit in enumerate(most) if shares[i] < limit]
        each, odd = divmod(left, len(open_ones))
        for place, i in enumerate(open_ones):
            more = min(each + (place < odd), most[i] - shares[i])
            shares[i] += more
            left -= more
    return tuple(shares)


def len_of_size(number: int) -> int:
    """Bytes of a compact size."""
    return 1 if number < 0xFD else 3 if number <= 0xFFFF else 5


def _branch_and_bound(values: Sequence[int], need: int, room: int) -> list[int] | None:
    """Indices of the values whose sum is nearest above `need` and at most `need + room`; `values` descending."""
    rest = [0] * (len(values) + 1)
    for i in range(len(values) - 1, -1, -1):
        rest[i] = rest[i + 1] + values[i]
    best: list[int] | None = None
    best_sum = need + room + 1
    chosen: list[int] = []
    total = at = 0
    for _ in range(TRIES):
        if total < need and at < len(values) and total + rest[at] >= need:
            chosen.append(at)
            total += values[at]
            at += 1
            continue
        if need <= total < best_sum:
            best, best_sum = list(chosen), total
            if total == need:
                break
        if not chosen:
            break
        last = chosen.pop()
        total -= values[last]
        at = last + 1
        while at < len(values) and values[at] == values[last]:  # the same value again is the same search again
            at += 1
    return best


def _largest(ordered: Sequence[Coin], paid: int, shape: Shape, rate: int) -> Selection | Refusal | None:
    """The fewest of the largest coins that leave change; where none do, the fewest that pay without it."""
    without: Selection | None = None
    for count in range(1, len(ordered) + 1):
        found = settle(tuple(ordered[:count]), paid, shape, rate)
        if isinstance(found, Selection) and found.change:
            return found
        if isinstance(found, Selection):
            without = without or found
        elif found.rule is Rule.TRANSACTION_TOO_LARGE:
            return without or found
    return without


def _too_poor(coins: Sequence[Coin], worth: Sequence[Coin], need: int) -> Refusal:
    left_out, have = len(coins) - len(worth), sum(coin.units for coin in worth)
    return Refusal(Rule.INSUFFICIENT_BALANCE, confirmed=have, coins=len(worth), left_out=left_out, need=need)
