"""`nimbusctl`: the command line of nimbusd. Commands are imported when they are asked for."""

from __future__ import annotations

import importlib
import sys

import click

from nimbusd import __version__
from nimbusd.stages.errors import NimbusError

_COMMANDS = {
    "run": ("nimbusd.cli.run:run", "Run a job on this machine, or go on with it."),
    "check": ("nimbusd.cli.check:check", "Check a job file without running it."),
    "show": ("nimbusd.cli.show:show", "Summarize a dataset and draw its contact sheet."),
    "publish": ("nimbusd.cli.publish:publish", "Publish what a job has committed so far."),
    "verify": ("nimbusd.cli.publish:verify", "Check a dataset's checksums, counts and contents."),
}


class _LazyGroup(click.Group):
    """Imports a command's module only when the command is used or helped with."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nimbusctl")
def cli() -> None:
    """Make embodied synthetic data: load, plan, render and store episodes, exactly once."""


def main() -> None:
    """The entry point. Errors that nimbusd raises on purpose become one line and exit status 1."""
    try:
        cli()
    except NimbusError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
