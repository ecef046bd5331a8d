# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `bulkhead devnet up` ends with: a withdrawal by hand, in commands that can be pasted one by one."""

from collections.abc import Iterator
from pathlib import Path

from custody.settings import home_folder
from devnet.birth import EVM
from devnet.home import bulkhead_home, bulkhead_program
from devnet.people import PASSWORD
from devnet.services import API_PORT

_OUTSIDE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
"""An address of nobody's in this deployment: the customer's own, somewhere else."""


def guide(home: Path, url: str, console: str) -> Iterator[str]:
    """The lines. `home` and `url` are named in them only where they are not what the commands assume by themselves."""
    program = _near(bulkhead_program())
    there = "" if {home.absolute()} == {bulkhead_home().absolute(), home_folder(None)} else f" --home {_near(home)}"
    yield ""
    yield f"The console is {console}, and things wait there for Ana, who is of operations. Be Ana:"
    yield f"  1. Open {console}/enrol?person=ana, make a passkey, download its file."
    yield "     A browser that has no passkeys: Chromium's developer tools, More tools, WebAuthn, Enable virtual authenticator"
    yield "     environment, Add (ctap2, internal, resident keys, user verification), and leave the tools open."
    yield f"  2. {program} devnet admit{there} ~/Downloads/passkey-ana.json"
    yield "     Four colleagues sign the roster that names your key, and a day of the devnet's clock goes by."
    yield f"  3. Log in at {console}. The queue begins with what waits for you: read it, approve it, and watch it being paid."
    yield ""
    yield f"By hand, a line at a time; every key file asks for its password, which is: {PASSWORD}"
    if {home.absolute()} != {bulkhead_home().absolute(), home_folder(None)}:
        yield f"  export BULKHEAD_HOME={_near(home)}"
    if url != f"http://127.0.0.1:{API_PORT}":
        yield f"  export BULKHEAD_API={url}"
    yield f"  b={program} k={_near(home / 'people')} to={_OUTSIDE}"
    yield "  # a customer, and 20 ETH of theirs"
    yield "  $b customer add zoe"
    yield f"  $b devnet pay $($b customer address zoe {EVM}) 20 ETH"
    yield "  $b customer list"
    yield "  # hana, an address authority, enrols where zoe may withdraw to; it cools off for a day"
    yield f"  $b customer enrol zoe {EVM} $to --key $k/hana.json"
    yield "  $b devnet advance 90000"
    yield "  # the backend proposes over the API; 6 ETH are too much to go out by themselves"
    yield "  id=$($b api propose customer:zoe 6 ETH $to --key $k/backend.pem)"
    yield "  $b transfers"
    yield "  # ana of operations and cleo of risk approve; the worker does the rest"
    yield "  $b approve $id --key $k/ana.json"
    yield "  $b approve $id --key $k/cleo.json"
    yield "  $b devnet mine 4"
    yield "  $b transfers --all"
    yield "  # more than a hot wallet may keep: within a minute the rebalancer proposes to move the rest into cold; people approve"
    yield f"  $b devnet pay $($b customer address zoe {EVM}) 3000 ETH"
    yield "  $b transfers"
    yield "  # what anybody can check"
    yield "  $b ledger verify"
    yield "  $b coverage --check"
    yield "Everything that runs: $b devnet status. Stop it with: make down"


def _near(path: Path) -> Path:
    """Seen from where the person stands, if it is below."""
    here = Path.cwd()
    return path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path.absolute()
