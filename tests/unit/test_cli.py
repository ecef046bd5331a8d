# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root command: lists without importing, imports one, says clean words, and ends with a code that a program can use."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

import pytest
import typer

from custody import cli
from custody.rules.errors import CustodyError, InvalidInput, Unavailable, UnbalancedEntry
from custody.rules.refusals import Refusal, Refused, Rule

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stand in for the installed entry points: names to objects, or to modules that are not there."""

    def install(**values: object) -> None:
        def command(value: object) -> EntryPoint:
            if isinstance(value, str):
                return EntryPoint("x", value, cli.GROUP)
            monkeypatch.setattr(cli, "_planted", value, raising=False)
            return EntryPoint("x", "custody.cli:_planted", cli.GROUP)

        found = [EntryPoint(name, command(value).value, cli.GROUP) for name, value in values.items()]
        monkeypatch.setattr(cli, "entry_points", lambda group: found if group == cli.GROUP else [])

    return install


def command_raising(error: Exception) -> typer.Typer:
    """A sub-command that ends so."""
    app = typer.Typer()

    @app.command()
    def run() -> None:
        """Raise."""
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        pytest.param(
            Refused([Refusal(Rule.COVERAGE, asset="ETH", surplus=-1), Refusal(Rule.STALE, age=9)]),
            1,
            "refused: coverage(asset=ETH, surplus=-1)\nrefused: stale(age=9)\n",
            id="each refusal on its line, with rule and operands",
        ),
        pytest.param(
            InvalidInput("amount", Rule.DUST, "'1'", "at least 2"),
            2,
            "invalid input: amount: dust: got '1'; wanted at least 2\n",
            id="invalid input",
        ),
        pytest.param(Unavailable("node", "timed out"), 3, "node is unavailable: timed out\n", id="unavailable"),
        pytest.param(
            UnbalancedEntry("ETH", 1, 2), 1, "UnbalancedEntry(asset=ETH, debits=1, credits=2)\n", id="a finding"
        ),
    ],
)
def test_deliberate_errors_become_a_message_and_a_code(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], error: CustodyError, code: int, told: str
) -> None:
    """On stderr, without a traceback."""
    install(x=command_raising(error))
    assert cli.main(["x"]) == code
    assert capsys.readouterr().err == told


def test_an_unexpected_error_keeps_its_traceback(install: Callable[..., None]) -> None:
    """A surprise is not dressed up."""
    install(x=command_raising(ZeroDivisionError("surprise")))
    with pytest.raises(ZeroDivisionError, match="surprise"):
        cli.main(["x"])


def test_a_commands_own_exit_code_passes(install: Callable[..., None]) -> None:
    """`raise typer.Exit(1)` is a finding told by the command itself."""
    install(x=command_raising(typer.Exit(1)))
    with pytest.raises(SystemExit) as ended:
        cli.main(["x"])
    assert ended.value.code == 1


def test_a_missing_module_breaks_its_own_command_only(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Help still lists it and the others; calling it says what is missing."""
    install(ghost="custody.commands.not_there:app", watch="custody.commands.watch:app")
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert "ghost" in listed
    assert cli.HELP["watch"] in listed
    assert cli.main(["ghost"]) == 3
    assert "custody.commands.not_there is not installed" in capsys.readouterr().err


def test_a_dependency_missing_inside_a_command_is_a_surprise(
    install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the command's own absence is told politely; a broken installation keeps its traceback."""
    (tmp_path / "broken_command.py").write_text("import a_driver_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    install(x="broken_command:app")
    with pytest.raises(ModuleNotFoundError, match="a_driver_that_is_not_there"):
        cli.main(["x"])


@pytest.mark.parametrize(("word", "hint"), [("devnett", "did you mean 'devnet'?"), ("frobnicate", "--help")])
def test_an_unknown_command(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], word: str, hint: str
) -> None:
    """A usage error, with the nearest name where there is one."""
    install(devnet="devnet.cli:app")
    assert cli.main([word]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]], ids=repr)
def test_help_imports_no_command(words: list[str]) -> None:
    """Listing every sub-command loads none of them, nor any driver."""
    code = f"import sys\nfrom custody.cli import main\nassert main({words!r}) == 0\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )  # our own code
    listing, _, modules = done.stdout.rstrip().rpartition("\n")
    assert "coverage" in listing
    assert not {"typer", "web3", "sqlalchemy", "devnet", "custody.commands", "custody.flows"} & set(modules.split())


def test_every_entry_point_has_a_line_of_help() -> None:
    """pyproject.toml and the table say the same names."""
    assert set(cli._commands()) <= set(cli.HELP)
