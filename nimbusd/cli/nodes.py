"""`nimbusctl nodes`, `drain`, `token`: the machines of a cluster."""

from __future__ import annotations

import re
import time

import click

from nimbusd.cli import tables
from nimbusd.cli.connect import (
    EXIT_HELP,
    ClusterCommand,
    complete_node,
    connect,
    json_option,
    print_done,
    print_json,
)
from nimbusd.cli.console import make_console
from nimbusd.program import Commands

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl nodes. {EXIT_HELP}")
@json_option
def nodes(as_json: bool) -> None:
    """The nodes: what they hold and have done, how busy they are, and what keeps them from work."""
    with connect() as client:
        known, counters = client.nodes(), client.counters()
    if as_json:
        print_json({"nodes": known, "counters": counters})
        return
    console = make_console()
    if not known:
        console.print("No node has joined yet. On the machine that shall be one: nimbusd worker")
        return
    console.print(tables.nodes_table(known, console.width))
    for line in tables.node_problems(known, console.width):
        console.print(line)


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl drain node-7, later --undo. {EXIT_HELP}")
@click.argument("node", shell_complete=complete_node)
@click.option("--undo", is_flag=True, help="Give it work again.")
@json_option
def drain(node: str, undo: bool, as_json: bool) -> None:
    """Give NODE no more work. It finishes the episodes that have begun and hands the others to other nodes."""
    with connect() as client:
        done = client.drain(node, on=not undo)
    print_done(done, as_json)


@click.group(cls=Commands)
def token() -> None:
    """Let nodes join."""


@token.command(cls=ClusterCommand, epilog=f"Example: nimbusctl token create --ttl 10m. {EXIT_HELP}")
@click.option(
    "--ttl", default="1h", show_default=True, metavar="TIME", help="How long it is good for: 90s, 30m, 1h, 2d."
)
@json_option
def create(ttl: str, as_json: bool) -> None:
    """Print a one-line secret with which one node can join: nimbusd worker --join TOKEN."""
    ttl_s = _seconds(ttl)
    with connect() as client:
        made = client.token(ttl_s)
    if as_json:
        print_json(made)
        return
    click.echo(made.token)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.expires_unix_s))
    click.echo(f"Good for one node until {until}. On that machine: nimbusd worker --join TOKEN", err=True)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"'{text}' is not a time such as 90s, 30m, 1h or 2d", param_hint="--ttl")
    return float(match[1]) * _UNITS_S[match[2]]
