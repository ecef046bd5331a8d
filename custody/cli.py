# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead`: one console command; each package brings its own sub-commands through the entry-point group `bulkhead.commands`.

Only the sub-command that is called is imported, so that `bulkhead --help` does not wait for web3. An entry whose module is
missing is an error of that command alone. Custody never imports devnet or api: it finds them by name, like any stranger's.

Exit codes: 0 fine; 1 refused, or a check found something; 2 invalid input or usage; 3 something outside did not answer.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points, version
from typing import Final

from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.refusals import Refused

GROUP: Final = "bulkhead.commands"

HELP: Final = {
    "demo": "The narrated demonstration on a network of its own; exit 0 only if all of it held.",
    "devnet": "Run Anvil, bitcoind -regtest and one OpenBao for each seat: up, status, down.",
    "init": "Birth: identity keys, genesis, roster version 1, pinned by every seat.",
    "roster": "The roster: who is who, its versions and their signatures.",
    "policy": "Draft, sign and activate a policy bundle.",
    "seat": "One key-holder: its identity, its wallet keys, its journal.",
    "attestor": "The attestor: its identity, its process, its word.",
    "relayer": "The relayer: the process whose key pays EVM gas and can move nothing.",
    "sign": "Read a document in plain words and sign it with your own key.",
    "wallet": "Make one wallet: keys at each seat, certificate, quorum.",
    "wallets": "The inventory: every wallet with its tier, address, seats and balance on chain.",
    "customer": "Customers and their deposit addresses.",
    "watch": "Follow the chains: see deposits, credit them at finality, reverse what a reorg takes back.",
    "ledger": "The journal: verify it to its origins, list entries, record signed settlements.",
    "coverage": "Reserves, liabilities and surplus of each asset at one final height per chain.",
    "statement": "The attestor's signed statement: make one, or verify one offline.",
    "worker": "The worker: authorize, ask seats to sign, broadcast, follow to finality, post; holds no key.",
    "rebalance": "Hot wallets above their cap overflow into cold, below their floor a refill is proposed.",
    "transfers": "Every transfer, where it stands, and for whom or what it waits.",
    "approve": "See in plain words what a transfer would move, and approve exactly that with your own key.",
    "reject": "Say no to a transfer, with the reason; the initiator's own no cancels it.",
    "freeze": "Stop a wallet, a customer, a chain or everything for hours, at every seat, by your own key.",
    "unfreeze": "End a freeze early: list, draft, and carry what a quorum signed.",
    "payout": "Carry a payout to cold seats and their signatures back; void an anchor that must die.",
    "passkey": "Passkeys: verify an enrolment, put it into a roster draft, say where pages find it.",
    "verify-intent": "Say what a message means by a second program, and whether a payload does exactly that.",
    "backup": "Everything public that recovery needs, in one file: write it, or verify one offline.",
    "deriver": "The deriver: the process that derives addresses for the API, with no key and no node.",
    "api": "The REST API of the backend and the treasury: signed requests in, proposals and evidence out.",
    "console": "The treasury console: pages to see what would move, and to decide with your own passkey.",
}
"""One line for each sub-command, in the order of use; known here so that listing them imports none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code; an unexpected error keeps its traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in ([], ["-h"], ["--help"], ["help"]):
        _tell(_listing(), error=False)
        return 0
    if words == ["--version"]:
        _tell(f"bulkhead {version('bulkhead')}", error=False)
        return 0
    found = _commands()
    entry = found.get(words[0])
    if entry is None:
        near = get_close_matches(words[0], found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`bulkhead --help` lists them"
        _tell(f"bulkhead: no command {words[0]!r}; {hint}")
        return 2
    try:
        _run(entry, words[1:])
    except CustodyError as error:
        _tell(*_lines(error))
        return _code(error)
    return 0


def _commands() -> dict[str, EntryPoint]:
    """Every installed sub-command by name, known ones first and in the order of use."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return {name: found[name] for name in (*HELP, *sorted(found.keys() - HELP.keys())) if name in found}


def _listing() -> str:
    rows = [(name, HELP.get(name, f"(from {entry.module})")) for name, entry in _commands().items()]
    told = "\n".join(f"  {name:<11}{line}" for name, line in rows)
    return f"""Usage: bulkhead COMMAND [ARGUMENTS]

Self-hosted multisig custody: walls nobody can open, evidence anybody can check.

{told or "  (no commands are installed: run `make setup`)"}

`bulkhead COMMAND --help` says more. Exit codes: 1 refused or found, 2 invalid input, 3 unavailable."""


def _run(entry: EntryPoint, arguments: list[str]) -> None:
    """Import and run one, which ends in SystemExit; raises Unavailable where its own module (not one it needs) is missing."""
    try:
        app = entry.load()
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry.module}.".startswith(f"{error.name}."):
            raise
        raise Unavailable(f"the command {entry.name!r}", f"its module {entry.module} is not installed") from error
    app.pretty_exceptions_enable = False  # typer's own would print local variables, and with them passwords
    app(args=arguments, prog_name=f"bulkhead {entry.name}")


def _lines(error: CustodyError) -> list[str]:
    """What a person reads: each refusal or fault on its line, with its rule and its operands."""
    if isinstance(error, Refused):
        return [f"refused: {refusal}" for refusal in error.refusals]
    if isinstance(error, InvalidInput):
        return [f"invalid input: {error}"]
    return [str(error)]


def _code(error: CustodyError) -> int:
    match error:
        case InvalidInput():
            return 2
        case Unavailable():
            return 3
        case _:
            return 1


def _tell(*lines: str, error: bool = True) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
