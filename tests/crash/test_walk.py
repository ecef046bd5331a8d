# SPDX-License-Identifier: AGPL-3.0-or-later
"""A walk of crashes in `make test`; `make crash` kills at every point."""

import sys
from typing import Final

import pytest

from tests.crash.journeys import JOURNEYS
from tests.crash.runs import living, sample, table

PINNED: Final = 0.15
"""The least part of all points that this walk covers; the rest is `make crash`'s."""


@pytest.mark.timeout(1500)  # a world rises and its parts are started thirty times, beside another worker's tests
def test_a_walk_of_crashes(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """A deposit and a withdrawal of ether, a token and bitcoin, while api, worker, watcher, attestor and seats are killed under them.

    Whoever is killed comes back and goes on. In the end both chains and the books have come to what they came to for a twin that
    nobody killed: each payment once, nothing else out of our wallets, nothing held, and a statement that covers what is owed.
    """
    told: list[str] = []
    with living(tmp_path_factory.mktemp("c"), told.append) as field:
        twin = field.twin(JOURNEYS, JOURNEYS)
        walked = field.crash(twin, sample(twin.points))
    with capsys.disabled():  # to stderr, because a worker of `make test` has no stdout
        print("", *table(twin.points, walked.fired), sep="\n", file=sys.stderr)
    assert twin.outcome.faults == ()
    assert twin.unwatched == ()
    assert walked.differences == ()
    assert len(walked.fired) >= PINNED * len(twin.points), sorted(walked.armed - walked.fired)
