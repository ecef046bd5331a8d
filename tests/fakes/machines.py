# SPDX-License-Identifier: AGPL-3.0-or-later
"""How long stateful tests run, by profile, and how a test shows that its machine finds a planted bug."""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "default")
_HEALTH: Final = list(HealthCheck)


def budget(examples: int, steps: int) -> settings:
    """Seconds by default; forty times the examples, and longer ones, under `soak`; a few, always the same, under `mutants`."""
    many = {"soak": 40 * examples, "mutants": min(examples, 5)}.get(PROFILE, examples)
    long = 3 * steps if PROFILE == "soak" else steps
    return settings(max_examples=many, stateful_step_count=long, suppress_health_check=_HEALTH)


def finds(machine: type[RuleBasedStateMachine], examples: int = 60, steps: int = 30) -> None:
    """The machine fails: a bug is planted in what it tests. Always the same examples, and no time spent on shrinking them."""
    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=_HEALTH,
        phases=(Phase.generate,),
        derandomize=True,
        database=None,
        verbosity=Verbosity.quiet,
    )
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(machine, settings=quick)
