"""`nimbusctl watch [JOB]`: what happens, as it happens."""

from __future__ import annotations

import sys

import click

from nimbusd.cli.connect import EXIT_HELP, ClusterCommand, complete_job, connect, interruptible, json_option
from nimbusd.cli.console import make_console
from nimbusd.cli.event_lines import event_json, event_line


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl watch my_job --json | jq .event. {EXIT_HELP}")
@click.argument("job", required=False, shell_complete=complete_job)
@click.option("--since", metavar="CURSOR", help="Go on after this place instead of from now on.")
@json_option
def watch(job: str | None, since: str | None, as_json: bool) -> None:
    """Print events as they happen, of all jobs or of JOB, until Ctrl-C. Goes on when the master was away.

    With --json, one object per line; its `cursor` is what --since takes. A gap in the events shows as `missed`.
    """
    console = make_console(soft_wrap=True)
    cursor = since or ""
    what = f"nimbusctl watch {job}" if job else "nimbusctl watch"
    with interruptible(lambda: f"To go on: {what} --since {cursor}" if cursor else ""), connect() as client:
        if job is not None:
            client.job(job)  # a job that does not exist would be silent for ever
        cursor = cursor or client.cursor()
        for item in client.watch(cursor, job):
            cursor = item.cursor
            if as_json:
                sys.stdout.write(event_json(item) + "\n")
                sys.stdout.flush()
            else:
                console.print(event_line(item, with_job=job is None))
