# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy draft | activate`: the bundle in force is the one whose activation the owners signed."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, out, read_signed_as, write_json
from custody.rules.errors import Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.signatures import Signed


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for name, command in (("draft", draft), ("activate", activate)):
        app.command(name)(command)


def draft(
    target: Annotated[Path, typer.Argument(help="Where to write the activation that owners sign.")],
    author: Annotated[str, typer.Option(help="The person who wrote the bundle; does not count as an owner who signs.")],
    home_option: Home = None,
) -> None:
    """Check the settings' bundle strictly and write its activation."""
    from custody.bootstrap import wall_clock
    from custody.rules.typed import ZERO32
    from custody.settings import Settings
    from policies.bundle import load

    bundle = load(Path(Settings.load(home(home_option)).bundle))
    activation = PolicyActivation(bundle.hash, ZERO32, ZERO32, author, wall_clock())
    write_json(target, Signed(activation, ()).to_json())
    out.print(f"bundle 0x{bundle.hash.hex()}\nnow owners sign it: bulkhead sign {target}", markup=False)


def activate(
    file: Annotated[Path, typer.Argument(help="An activation with its owners' signatures.")], home_option: Home = None
) -> None:
    """Check the owners' quorum, put the bundle in force, and hand it to every seat that answers, which verifies it for itself.

    May be run again: seats that have it answer the same. There is one bundle so far: the first.
    """
    from custody import parts
    from custody.bootstrap import ACTIVATION, BUNDLE, open_deployment, wall_clock
    from custody.rules.refusals import raise_if
    from custody.rules.typed import ZERO32
    from policies import activation

    document = read_signed_as(file, PolicyActivation)
    deployment = open_deployment(home(home_option))
    raise_if(activation.check(document, deployment.bundle, ZERO32, deployment.roster, wall_clock()))
    key = deployment.bundle.hash.hex()
    deployment.store.run(lambda work: work.documents.put(BUNDLE, key, deployment.bundle.to_json()))
    deployment.store.run(lambda work: work.documents.put(ACTIVATION, key, document.to_json()))
    out.print(f"in force: bundle 0x{key}", markup=False)
    for name, seat in parts.seats(deployment.settings).items():
        try:
            seat.admit_policy(document, deployment.bundle.to_json())
        except Unavailable:  # a cold seat: it is handed the same files inside a ceremony
            folder = deployment.settings.bundle
            out.print(
                f"seat {name} is silent: bulkhead seat admit-policy {name} {file} {folder} --socket …", markup=False
            )
        else:
            out.print(f"seat {name} has it", markup=False)
