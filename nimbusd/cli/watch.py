"""`nimbusctl watch [JOB]`: what happens, as it happens."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson
from rich.console import Console

from nimbusd.cli.connect import EXIT_HELP, ClusterCommand, complete_job, connect, interruptible, json_option
from nimbusd.cli.event_lines import event_line
from nimbusd.client import Event, Gap


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl watch my_job --json | jq .event. {EXIT_HELP}")
@click.argument("job", required=False, shell_complete=complete_job)
@click.option("--since", metavar="CURSOR", help="Go on after this place instead of from now on.")
@json_option
def watch(job: str | None, since: str | None, as_json: bool) -> None:
    """Tell events as they happen, of all jobs or of JOB, until Ctrl-C. Goes on when the master was away.

    With --json, one object per line; its `cursor` is what --since takes. A gap in the events is told as `missed`.
    """
    console = Console(highlight=False, soft_wrap=True)
    cursor = since or ""
    what = f"nimbusctl watch {job}" if job else "nimbusctl watch"
    with interruptible(lambda: f"To go on: {what} --since {cursor}" if cursor else ""), connect() as client:
        if job is not None:
            client.job(job)  # a job that does not exist would be silent for ever
        cursor = cursor or client.cursor()
        for item in client.watch(cursor, job):
            cursor = item.cursor
            if as_json:
                sys.stdout.write(_json(item) + "\n")
                sys.stdout.flush()
            else:
                console.print(event_line(item, with_job=job is None))


def _json(item: Event | Gap) -> str:
    values: dict[str, Any]
    if isinstance(item, Gap):
        values = {"event": "missed", "missed": item.missed, "cursor": item.cursor}
    else:
        values = {"event": item.name, "job": item.job, "time": item.time_unix_s, "cursor": item.cursor, **item.fields}
    return orjson.dumps(values).decode()
