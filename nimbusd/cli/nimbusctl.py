"""The program `nimbusctl`: its commands by section, and where each is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

from nimbusd import __version__
from nimbusd.program import Commands, run_program

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SECTIONS = {
    "On this machine": {
        "run": ("nimbusd.cli.run:run", "Run a job on this machine, or go on with it."),
        "check": ("nimbusd.cli.check:check", "Check a job file without running it."),
        "import": ("nimbusd.cli.import_:import_", "Turn another engine's configuration into a job file."),
        "show": ("nimbusd.cli.show:show", "Summarize a dataset and draw its contact sheet."),
        "export": ("nimbusd.cli.export:export", "Boxes and masks for other programs: COCO, KITTI."),
        "publish": ("nimbusd.cli.publish:publish", "Publish what a job has committed so far."),
        "verify": ("nimbusd.cli.publish:verify", "Check a dataset's checksums, counts and contents."),
        "repair": ("nimbusd.cli.repair:repair", "Make damaged or missing episodes of an output again."),
        "output": ("nimbusd.cli.output:output", "Move, adopt or rebuild an output folder."),
        "backup": ("nimbusd.cli.backup:backup", "Copy a ledger, with a master's keys, to a file."),
        "restore": ("nimbusd.cli.backup:restore", "Put a backup back."),
        "replay": ("nimbusd.cli.replay:replay", "Make one episode again, to see why it failed."),
        "chaos": ("nimbusd.cli.chaos:chaos", "Run a job while everything goes wrong, and count."),
        "assets": ("nimbusd.cli.assets:assets", "Fetch robots and objects for manipulation."),
        "simulate": ("nimbusd.cli.simulate:simulate", "Predict how long a job takes on a number of nodes."),
    },
    "Jobs of a cluster": {
        "submit": ("nimbusd.cli.submit:submit", "Run a job on the cluster, or go on with it."),
        "status": ("nimbusd.cli.status:status", "The state of all jobs, or all about one."),
        "top": ("nimbusd.cli.top:top", "Nodes and jobs, live."),
        "watch": ("nimbusd.cli.watch:watch", "Print events as they happen."),
        "logs": ("nimbusd.cli.status:logs", "Episodes that were not made, with the evidence."),
        "cancel": ("nimbusd.cli.status:cancel", "Stop a job; what is committed stays."),
        "forget": ("nimbusd.cli.status:forget", "Remove a job that is over from its master."),
        "retry": ("nimbusd.cli.status:retry", "Give quarantined episodes another chance."),
    },
    "Machines of a cluster": {
        "nodes": ("nimbusd.cli.nodes:nodes", "The nodes: their work, load and troubles."),
        "drain": ("nimbusd.cli.nodes:drain", "Give a node no more work."),
        "token": ("nimbusd.cli.nodes:token", "Let nodes join."),
        "keygen": ("nimbusd.cli.keys:keygen", "Make a key pair for a node or a person."),
    },
}
_COMMANDS = {name: entry for commands in _SECTIONS.values() for name, entry in commands.items()}


class _LazyGroup(Commands):
    """Imports a command's module only when the command is used or helped with."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options that begin so. Click's own would import every command to ask whether it is hidden."""
        from click.shell_completion import CompletionItem

        named = ((name, text) for name, (_, text) in _COMMANDS.items() if name.startswith(incomplete))
        commands = [CompletionItem(name, help=text) for name, text in named]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nimbusctl")
def cli() -> None:
    """Make embodied synthetic data: load, plan, render and store episodes, exactly once."""


def main() -> None:
    """The entry point."""
    run_program(cli, "nimbusctl")
