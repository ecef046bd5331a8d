# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.mutants [PATTERN …]`: change rules and flows at random; count what no test notices.

mutmut makes the mutants, all of a module in one file. How they are asked is ours, because a suite per mutant is hopeless on two
cores: tests are collected once, each mutant is a fork of that process, and it meets only tests that reach the mutated function, those
that import its module first, the quickest before the slower, up to a budget. Verdicts are kept in `mutants/`, so that a run goes on
where the last one stopped: a kill stands until its function changes, a survivor is asked again once a test changed.

Mutants that change nothing but words are counted apart and not asked: operands of a refusal or an error, which a person reads (the
rule itself is always asked). Whoever wants a score for wording can have it by writing tests of wording, and nobody would be safer.
"""

import argparse
import ast
import difflib
import gc
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from tests.mutant_sample import draw, interval

ROOT: Final = Path(__file__).resolve().parent.parent
COPIED: Final = (
    "custody",
    "policies",
    "api",
    "devnet",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "LICENSE",
)
MUTATED: Final = ("custody/rules", "custody/flows")
TESTS: Final = "tests/unit"
LEFT_OUT: Final = ("test_words.py", "test_controls_*.py")
"""Tests that read the source, where a mutant is not. `test_finds_*`, which plant bugs themselves and take long, are left out, too."""
BUDGET: Final = 8.0
"""Seconds of tests that one mutant meets, by what they took unmutated; `--budget` for another number."""
FIRST: Final = (
    "rules.coverage", "rules.walls", "rules.ledger", "rules.roster", "rules.approvals", "rules.requirement", "rules.seat",
    "rules.seat_checks_*", "rules.seat_journal", "rules.payouts", "rules.transfers", "rules.in_flight", "rules.ended_holds",
    "rules.hot_bands", "rules.waiting", "flows.authorization", "flows.proposals", "flows.payouts", "flows.signing", "flows.bumping",
    "flows.leases", "flows.attestation",
)  # fmt: skip
"""What would move coins or make the books wrong, in this order; everything else comes after it."""
TELLING: Final = frozenset(
    {"Refusal", "InvalidInput", "Unavailable", "UnbalancedEntry", "TypeError", "ValueError", "KeyError"}
)


@dataclass(slots=True)
class Verdict:
    """What became of one mutant: killed (by which test), survived, timeout, no tests or broken; in which state of the tests; seconds."""

    function: str
    verdict: str
    by: str = ""
    tests: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Module:
    """One mutated file: the hash of each function by its mangled name, and the mutants of each."""

    name: str
    source: str
    hashes: dict[str, str]
    mutants: list[str]
    words: list[str]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    drawn: frozenset[str] | None = None
    """Only these are asked, where a sample was drawn."""

    @property
    def wanted(self) -> list[str]:
        """Those that a run is about: not words, and of the sample where there is one."""
        return [m for m in self.mutants if m not in self.words and (self.drawn is None or m in self.drawn)]

    def hash_of(self, mutant: str) -> str:
        """The hash of the function that a mutant belongs to."""
        return self.hashes.get(mutant.partition("__mutmut_")[0], "")

    def pending(self, tests: str) -> list[str]:
        """Those that have to be asked, by this state of the tests."""
        return [mutant for mutant in self.wanted if not self._stands(mutant, tests)]

    def _stands(self, mutant: str, tests: str) -> bool:
        known = self.verdicts.get(mutant)
        if known is None or known.function != self.hash_of(mutant):
            return False
        return known.verdict in {"killed", "timeout"} or known.tests == tests


def copy(work: Path) -> None:
    """Everything that tests need; what did not change stays."""
    for name in COPIED:
        source, target = ROOT / name, work / name
        if source.is_file():
            shutil.copy2(source, target)
            continue
        for path in source.rglob("*"):
            to = work / path.relative_to(ROOT)
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            if not to.exists() or to.stat().st_mtime != path.stat().st_mtime:
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)
        for old in [old for old in target.rglob("*.py") if not (ROOT / old.relative_to(work)).exists()]:
            old.unlink()  # a test that is gone


def mutate(work: Path) -> Iterator[Module]:
    """All modules, their files in `work` replaced by all their mutants; kept by the hash of the source."""
    for path in sorted(file for room in MUTATED for file in (ROOT / room).glob("*.py") if file.name != "__init__.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        kept, text = work / "modules" / f"{name}.json", path.read_text()
        source = sha256(text.encode()).hexdigest()
        known = json.loads(kept.read_text()) if kept.exists() else None
        target = work / path.relative_to(ROOT)
        if known is None or known["source"] != source:
            print(f"mutating {name}", flush=True)
            made = mutate_file_contents(str(path.relative_to(ROOT)), text)
            words = [*_words(made.code, made.mutant_names)]
            known = {"name": name, "source": source, "hashes": dict(made.hash_by_function_name), "words": words}
            known["mutants"] = list(made.mutant_names)
            kept.parent.mkdir(exist_ok=True)
            (work / "modules" / f"{name}.py").write_text(made.code)
            kept.write_text(json.dumps(known))
        shutil.copyfile(work / "modules" / f"{name}.py", target)
        module = Module(**known)
        verdicts = _verdicts(work, name)
        if verdicts.exists():
            module.verdicts = {mutant: Verdict(**each) for mutant, each in json.loads(verdicts.read_text()).items()}
        yield module


def _verdicts(work: Path, name: str) -> Path:
    return work / "verdicts" / f"{name}.json"


def functions(code: str) -> dict[str, ast.FunctionDef]:
    """Every function of a mutated file, by its mangled name."""
    found = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
    return found


class _Blank(ast.NodeTransformer):
    """Takes out what only a person reads: the operands of what is refused or raised, its rule apart."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """One call."""
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in TELLING:
            return node
        rules: list[ast.expr] = [
            arg for arg in node.args if isinstance(arg, ast.Attribute) and ast.unparse(arg).startswith("Rule.")
        ]
        return ast.Call(node.func, rules, [])


def _words(code: str, mutants: Iterable[str]) -> Iterator[str]:
    found = functions(code)

    def bare(name: str) -> str:
        node = _Blank().visit(found[name])
        return "\n".join(ast.unparse(part) for part in (node.args, *node.body))

    originals: dict[str, str] = {}
    for mutant in mutants:
        of = mutant.partition("__mutmut_")[0]
        original = originals.setdefault(of, bare(f"{of}__mutmut_orig"))
        if bare(mutant) == original:
            yield mutant


def show(work: Path, module: Module, mutant: str) -> str:
    """The difference that a mutant makes."""
    found = functions((work / "modules" / f"{module.name}.py").read_text())
    before, after = (
        ast.unparse(found[name]).splitlines() for name in (f"{mutant.partition('__mutmut_')[0]}__mutmut_orig", mutant)
    )
    told = difflib.unified_diff(before, after, lineterm="", n=1)
    return "\n".join(line for line in told if not line.startswith(("---", "+++", "@@")))


@dataclass
class Asker:
    """A pytest plugin that runs no tests of its own accord, but lets each mutant meet those that reach it."""

    work: Path
    modules: Sequence[Module]
    until: float
    jobs: int
    budget: float = BUDGET
    touched: dict[str, dict[str, tuple[float, list[str]]]] = field(default_factory=dict)
    """By test file and content: each test's seconds, and the functions that it reached."""
    running: dict[int, tuple[Module, str, float, float, int]] = field(default_factory=dict)
    state_of_tests: str = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of running the tests."""
        files = {path: sha256(path.read_bytes()).hexdigest() for path in sorted(self.work.glob("tests/**/*.py"))}
        state_of_files = sha256("".join(files.values()).encode()).hexdigest()[:16]
        self.state_of_tests = f"{state_of_files}/{self.budget:g}"  # a larger budget asks survivors once more
        items = {item.nodeid: item for item in session.items}
        self._learn(items, files)
        reached: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for of_file in self.touched.values():
            for test, (seconds, names) in of_file.items():
                for name in names if test in items else ():
                    reached[name].append((seconds, test))
        texts = {item.path: item.path.read_text() for item in session.items}
        for module in self.modules:
            about = {path for path, text in texts.items() if _imports(text, module.name)}
            chosen: dict[str, list[str]] = {}
            for function in {mutant.partition("__mutmut_")[0] for mutant in module.pending(self.state_of_tests)}:
                found = reached.get(f"{module.name}.{function}", [])
                chosen[function] = [
                    *_within(_in_order(found, {test for _, test in found if items[test].path in about}), self.budget)
                ]
            broken = self._warm_up(
                [items[test] for test in sorted({test for tests in chosen.values() for test in tests})]
            )
            for mutant in module.pending(self.state_of_tests):
                if time.monotonic() > self.until:
                    break
                tests = [test for test in chosen[mutant.partition("__mutmut_")[0]] if test not in broken]
                kills = Counter(
                    verdict.by for verdict in module.verdicts.values()
                )  # what killed its neighbours, kills soon
                self._ask(module, mutant, [items[test] for test in sorted(tests, key=lambda each: -kills[each])])
        while self.running:
            self._wait()
        return True

    def _learn(self, items: Mapping[str, pytest.Item], files: Mapping[Path, str]) -> None:
        """Which test reaches which function: run once, in a fork, and again for files of tests that changed."""
        kept = self.work / "touched.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        wanted: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in items.values():
            wanted[f"{item.path.relative_to(self.work)} {files[item.path]}"].append(item)
        new = [item for key, of in wanted.items() if key not in known for item in of]
        if new:
            print(f"learning what {len(new)} tests reach", flush=True)
            answer = self.work / "learnt.json"
            if (pid := os.fork()) == 0:
                _quiet(self.work / "learning.txt")
                set_mutant_under_test("stats")
                answer.write_text(json.dumps(_reach(new)))
                os._exit(0)
            os.waitpid(pid, 0)
            learnt = json.loads(answer.read_text())
            for key, of in wanted.items():
                if key not in known:
                    known[key] = {item.nodeid: learnt[item.nodeid] for item in of if item.nodeid in learnt}
            kept.write_text(json.dumps({key: known[key] for key in wanted}))
        self.touched = {key: known[key] for key in wanted}

    def _warm_up(self, tests: Sequence[pytest.Item]) -> set[str]:
        """Run them once without a mutant, so that every fork inherits what tests keep; those that fail prove nothing later."""
        if not tests or time.monotonic() > self.until:
            return set()
        broken = {test.nodeid for test, watch in _run(tests) if watch.failed}
        for test in sorted(broken):
            print("fails without any mutant, so it is not asked:", test, flush=True)
        gc.collect()
        gc.freeze()  # or every fork would copy what its collector looks at
        return broken

    def _ask(self, module: Module, mutant: str, tests: Sequence[pytest.Item]) -> None:
        if not tests:
            self._keep(module, mutant, "no tests", "")
            return
        while len(self.running) >= self.jobs:
            self._wait()
        limit = 15 + 6 * self.budget
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(read)
            _quiet(Path(os.devnull))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + int(time.process_time()), resource.RLIM_INFINITY))
            set_mutant_under_test(f"{module.name}.{mutant}")
            killer = ""
            try:
                killer = _meet(tests)
                os.write(write, killer.encode()[:400])
            finally:  # whatever happened, this process is not the one that goes on
                os._exit(1 if killer else 0 if sys.exc_info()[0] is None else 3)
        os.close(write)
        now = time.monotonic()
        self.running[pid] = (module, mutant, now, now + 8 * limit, read)

    def _wait(self) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.01)
            for late in [pid for pid, (_, _, _, until, _) in self.running.items() if time.monotonic() > until]:
                os.kill(late, signal.SIGKILL)
            return
        if pid not in self.running:
            return
        module, mutant, since, _, read = self.running.pop(pid)
        by = os.read(read, 400).decode(errors="replace")
        os.close(read)
        code = os.waitstatus_to_exitcode(status)
        verdict = {0: "survived", 1: "killed"}.get(
            code, "broken"
        )  # broken: no test said so, hence not counted as noticed
        if code in {-signal.SIGXCPU, -signal.SIGKILL}:
            verdict = "timeout"
        self._keep(module, mutant, verdict, by, time.monotonic() - since)

    def _keep(self, module: Module, mutant: str, verdict: str, by: str, seconds: float = 0.0) -> None:
        module.verdicts[mutant] = Verdict(module.hash_of(mutant), verdict, by, self.state_of_tests, round(seconds, 2))
        path = _verdicts(self.work, module.name)
        path.parent.mkdir(exist_ok=True)
        written = path.with_suffix(".new")
        written.write_text(json.dumps({name: asdict(each) for name, each in module.verdicts.items()}, indent=0))
        written.replace(path)


def _imports(text: str, module: str) -> bool:
    room, _, name = module.rpartition(".")
    return f"from {module} import" in text or any(
        line.startswith(f"from {room} import") and name in line for line in text.splitlines()
    )


def _in_order(found: Sequence[tuple[float, str]], first: set[str]) -> list[tuple[float, str]]:
    """Those of `first` before the others, and of each test function its quickest case before the second of any: long tables come late."""
    turns: Counter[str] = Counter()
    ranked = []
    for seconds, test in sorted(found):
        name = test.partition("[")[0]
        ranked.append((test not in first, turns[name], seconds, test))
        turns[name] += 1
    return [(seconds, test) for *_, seconds, test in sorted(ranked)]


def _within(ordered: Sequence[tuple[float, str]], budget: float) -> Iterator[str]:
    spent = 0.0
    for seconds, test in ordered:
        spent += seconds + 0.003
        if spent > budget:
            return
        yield test


def _quiet(to: Path) -> None:
    with to.open("wb") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


class _Watch:
    """Reports of one test after the other."""

    def __init__(self) -> None:
        self.seconds, self.failed = 0.0, False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test."""
        self.seconds += report.duration
        self.failed = self.failed or report.failed


def _run(tests: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, _Watch]]:
    manager = tests[0].config.pluginmanager
    for test, following in zip(tests, [*tests[1:], None], strict=True):
        manager.register(watch := _Watch())
        test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
        manager.unregister(watch)
        yield test, watch


def _reach(tests: Sequence[pytest.Item]) -> dict[str, tuple[float, list[str]]]:
    """Seconds and functions of every test that passes."""
    found = {}
    state()._stats.clear()
    for test, watch in _run(tests):
        if watch.failed:
            print("fails without any mutant, so it is not asked:", test.nodeid)
        else:
            found[test.nodeid] = (round(watch.seconds, 4), sorted(state()._stats))
        state()._stats.clear()
    return found


def _meet(tests: Sequence[pytest.Item]) -> str:
    """The first test that fails, or nothing."""
    return next((test.nodeid for test, watch in _run(tests) if watch.failed), "")


def table(modules: Iterable[Module], *, sampled: bool = False) -> str:
    """One line for each module, and the score; of a sample also between what the whole's lies."""
    lines = [f"{'module':34}{'noticed':>9}{'missed':>8}{'waiting':>9}{'words':>7}{'score':>9}"]
    noticed_all = missed_all = waiting_all = 0
    for module in modules:
        asked = module.wanted
        given = [v for m in asked if (v := module.verdicts.get(m)) and v.function == module.hash_of(m)]
        noticed = sum(v.verdict in {"killed", "timeout"} for v in given)
        missed = len(given) - noticed
        noticed_all, missed_all, waiting_all = (
            noticed_all + noticed,
            missed_all + missed,
            waiting_all + len(asked) - len(given),
        )
        if given:
            score = f"{100 * noticed / len(given):.1f} %"
            lines.append(
                f"{module.name:34}{noticed:9}{missed:8}{len(asked) - len(given):9}{len(module.words):7}{score:>9}"
            )
    total = noticed_all + missed_all
    score = f"{100 * noticed_all / total:.1f} %" if total else "nothing asked yet"
    if sampled and total:
        low, high = interval(noticed_all, total)
        score += f"; of all between {100 * low:.1f} and {100 * high:.1f} % with 95 %"
    return "\n".join([*lines, f"mutants noticed: {noticed_all} of {total} ({score}); {waiting_all} not asked yet"])


def _turn(name: str) -> tuple[int, str]:
    short = name.removeprefix("custody.")
    return next((place for place, pattern in enumerate(FIRST) if fnmatch(short, pattern)), len(FIRST)), name


def main(arguments: list[str] | None = None) -> int:
    """Ask what has no verdict yet, and tell; 0 whatever the score is."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", help="modules, such as 'custody.rules.coverage*'")
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="stop after so many; the next run goes on from there"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutants asked at once")
    parser.add_argument("--sample", type=int, default=0, help="only so many, drawn from all of them; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests that each one meets")
    parser.add_argument("--show", action="store_true", help="ask nothing; show each survivor's difference")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + 60 * asked.minutes
    work = ROOT / "mutants"
    work.mkdir(exist_ok=True)
    copy(work)
    patterns = asked.only or ["*"]
    modules = [
        m for m in sorted(mutate(work), key=lambda m: _turn(m.name)) if any(fnmatch(m.name, p) for p in patterns)
    ]
    if asked.sample:
        drawn = draw({module.name: module.wanted for module in modules}, asked.sample, asked.seed)
        for module in modules:
            module.drawn = drawn[module.name]
    if not asked.show and any(module.mutants for module in modules):
        os.chdir(work)
        sys.path[:] = [str(work), *(path for path in sys.path if not (Path(path) / "custody").is_dir())]
        left_out = [f"--ignore-glob={TESTS}/{name}" for name in LEFT_OUT]
        # A kill needs no words: to spell out a request that was signed by mistake took longer than all of the tests.
        plain = ["-q", "-s", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
        options = [*plain, f"--rootdir={work}", *left_out, "-k", "not test_finds_", TESTS]
        if code := pytest.main(options, plugins=[Asker(work, modules, until, max(1, asked.jobs), asked.budget)]):
            print("the tests could not be collected")
            return int(code)
    for module in modules:
        for mutant, known in sorted(module.verdicts.items()):
            if (
                known.verdict in {"survived", "no tests"}
                and known.function == module.hash_of(mutant)
                and mutant in module.wanted
            ):
                print(f"{known.verdict}: {module.name}.{mutant}")
                if asked.show:
                    print(show(work, module, mutant))
    print(table(modules, sampled=bool(asked.sample)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
