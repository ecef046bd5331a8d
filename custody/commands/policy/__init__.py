# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy …`: read, test, prove, compare, sign and put in force a bundle. Exit 0 fine, 1 a finding, 2 invalid, 3 unavailable."""

import typer

from custody.commands.policy import governing, history, proving, reading

app = typer.Typer(
    help="Policy as code: check, test, prove and compare bundles; sign one and put it in force.", no_args_is_help=True
)
for commands in (reading, proving, governing, history):
    commands.register(app)
