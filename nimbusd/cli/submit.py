"""`nimbusctl submit JOB`: hand a job to a cluster, and wait for it if asked to."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Console, RenderableType
from rich.live import Live

from nimbusd.cli import tables
from nimbusd.cli.connect import (
    ENDED_BADLY,
    EXIT_HELP,
    USAGE,
    ClusterCommand,
    connect,
    interruptible,
    json_option,
    print_json,
)
from nimbusd.cli.event_lines import event_line
from nimbusd.client import ENDED, Client, Event, Gap, JobSummary, MasterUnreachable

_TOLD_ABOVE = ("attempt_lost", "job_paused", "job_resumed", "worker_down")
_ASK_EVERY_S = 1.0
_AWAY_S = 1.0


@click.command(
    cls=ClusterCommand,
    epilog=f"Example: nimbusctl submit my_job.yaml --priority 5 --wait. {EXIT_HELP} With --wait, 1: it failed.",
)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--priority", type=int, default=0, show_default=True, help="Greater is sooner.")
@click.option("--user", help="Whose job it is [default: you]. Users share the nodes fairly.")
@click.option("--max-nodes", type=click.IntRange(0), default=0, help="At most so many nodes at a time [default: all].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as in `nimbusctl run`.")
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@click.option("--static", is_flag=True, help="Divide the work among the nodes beforehand, to compare.")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@json_option
def submit(
    job: Path,
    priority: int,
    user: str | None,
    max_nodes: int,
    overrides: tuple[str, ...],
    output: Path | None,
    static: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Run a JOB file on the cluster. The same job again goes on with what is missing.

    Its files and its output must lie where all nodes see them under the same path.
    """
    spec = _read(job, output, overrides)
    with connect() as client:
        cursor = client.cursor()
        summary = client.submit(spec, priority=priority, user=user, max_nodes=max_nodes, dynload=not static)
        if wait:
            with interruptible(lambda: f"The job goes on: nimbusctl status {summary.job}"):
                summary = _follow(client, summary, cursor, quiet=as_json)
    if as_json:
        print_json(summary)
    elif wait:
        click.echo(_end(summary))
    else:
        click.echo(
            f"{summary.job} is {summary.state}: {summary.committed:,} of {summary.wanted:,} episodes are there, "
            f"output {summary.output}\nFollow it: nimbusctl watch {summary.job}"
        )
    if wait and summary.state != "complete":
        sys.exit(ENDED_BADLY)


def _read(path: Path, output: Path | None, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The job's description. What is missing here may be there on the nodes, so that it is only warned of."""
    from nimbusd.job import JobError, check_job, load_job  # numpy and pydantic, which completion can do without

    try:
        loaded = load_job(path, output=output, overrides=overrides)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(USAGE)
    for problem in check_job(loaded).errors:
        click.echo(f"warning: on this machine, {problem}", err=True)
    return loaded.job.to_dict()


def _follow(client: Client, summary: JobSummary, cursor: str, *, quiet: bool) -> JobSummary:
    """Show a job until it has ended: its row, with what goes wrong above it, in a terminal; lines elsewhere."""
    console = Console(highlight=False)
    if quiet:
        return client.wait(summary.job)
    if console.is_terminal:
        with _Row(console, client, summary) as bar:
            return _until_ended(client, summary, cursor, bar.see)
    return _until_ended(client, summary, cursor, lambda item: console.print(event_line(item), soft_wrap=True))


def _until_ended(client: Client, summary: JobSummary, cursor: str, see: Callable[[Event | Gap], None]) -> JobSummary:
    """Tell `see` every event, and return how the job ended."""
    if summary.state in ENDED:
        return summary
    for item in client.watch(cursor, summary.job):
        see(item)
        if isinstance(item, Gap) or item.name == "job_ended":  # the end may be in the gap
            summary = _summary(client, summary.job)
            if summary.state in ENDED:
                break
    return summary


def _summary(client: Client, job: str) -> JobSummary:
    """How the job is, as soon as the master can be asked."""
    while True:
        try:
            return client.job(job).summary
        except MasterUnreachable:
            time.sleep(_AWAY_S)


class _Row:
    """The job's row of the table, redrawn in place."""

    def __init__(self, console: Console, client: Client, summary: JobSummary) -> None:
        self._console, self._client, self._job = console, client, summary
        self._asked_at = time.monotonic()
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def see(self, item: Event | Gap) -> None:
        if isinstance(item, Gap) or item.name in _TOLD_ABOVE:
            self._console.print(event_line(item, with_job=False), soft_wrap=True)
        if time.monotonic() - self._asked_at >= _ASK_EVERY_S:
            with contextlib.suppress(MasterUnreachable):
                self._job = self._client.job(self._job.job).summary
            self._asked_at = time.monotonic()

    def _draw(self) -> RenderableType:
        return tables.jobs_table([self._job], self._console.width)


def _end(job: JobSummary) -> str:
    lines = [f"{job.job} {job.state}: {job.committed:,} of {job.wanted:,} episodes, {job.frames:,} frames"]
    if job.why:
        lines.append(job.why)
    if job.failed or job.quarantined:
        lines.append(f"not made: {job.failed:,} without a plan, {job.quarantined:,} set aside")
    if job.quarantined:
        lines.append(f"why: nimbusctl logs {job.job}; once more: nimbusctl retry {job.job}")
    lines.append(f"output: {job.output}")
    return "\n".join(lines)
