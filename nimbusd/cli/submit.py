"""`nimbusctl submit JOB`: hand a job to a cluster, and wait for it if asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any, Self

import click
import orjson
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

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
from nimbusd.cli.console import Console, make_console
from nimbusd.cli.event_lines import event_json, event_line
from nimbusd.client import ENDED, Client, Event, Gap, JobSummary, MasterUnreachable
from nimbusd.core.words import counted

_TOLD_ABOVE = ("attempt_lost", "job_paused", "job_waiting", "job_resumed", "environment_changed", "worker_down")
_ASK_EVERY_S = 1.0
_SAY_EVERY_S = 30.0
_LAST_EVENTS_S = 10.0
"""The longest wait for the last events of a job that has ended."""


@click.command(
    cls=ClusterCommand,
    epilog=f"Example: nimbusctl submit my_job.yaml --priority 5 --wait. {EXIT_HELP} With --wait, 1: it failed.",
)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--priority", type=int, default=0, show_default=True, help="Greater is sooner.")
@click.option("--user", help="Whose job it is [default: you]. Users share the nodes fairly.")
@click.option("--max-nodes", type=click.IntRange(0), default=0, help="The most nodes at a time [default: all].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as in `nimbusctl run`.")
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@click.option("--static", is_flag=True, help="Divide the work among the nodes beforehand, to compare.")
@click.option("--adopt", is_flag=True, help="As in `nimbusctl run`.")
@click.option(
    "--accept-environment",
    is_flag=True,
    help="Go on with the packages that most nodes have now, and record the change.",
)
@click.option("--wait", is_flag=True, help="Show the job until it has ended; with --json, an event a line.")
@json_option
def submit(
    job: Path,
    priority: int,
    user: str | None,
    max_nodes: int,
    overrides: tuple[str, ...],
    output: Path | None,
    static: bool,
    adopt: bool,
    accept_environment: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Run a JOB file on the cluster. The same job again goes on with what is missing.

    Its files and its output must lie where all nodes see them under the same path.
    """
    spec = _read(job, output, overrides)
    with connect() as client:
        cursor = client.cursor()
        summary = client.submit(
            spec,
            priority=priority,
            user=user,
            max_nodes=max_nodes,
            dynload=not static,
            accept_environment=accept_environment,
            adopt=adopt,
        )
        if wait:
            with interruptible(lambda: f"The job goes on: nimbusctl status {summary.job}"):
                summary = _follow(client, summary, cursor, as_json=as_json)
    if as_json and wait:
        click.echo(orjson.dumps({"event": "summary", **dataclasses.asdict(summary)}))
    elif as_json:
        print_json(summary)
    elif wait:
        click.echo(_end(summary))
    else:
        click.echo(
            f"{summary.job} is {summary.state}: {summary.committed:,} of {counted(summary.wanted, 'episode')} there, "
            f"output {summary.output}\nFollow it: nimbusctl watch {summary.job}"
        )
    if wait and summary.state != "complete":
        sys.exit(ENDED_BADLY)


def _read(path: Path, output: Path | None, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The job's description. What is missing here may be there on the nodes, so that it is only warned of."""
    from nimbusd.job import JobError, read_apart  # numpy and pydantic, which completion can do without

    try:
        checked = read_apart(path, output=output, overrides=overrides)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(USAGE)
    for problem in checked.findings.errors:
        click.echo(f"warning: on this machine, {problem}", err=True)
    return checked.job.to_dict()


def _follow(client: Client, summary: JobSummary, cursor: str, *, as_json: bool) -> JobSummary:
    """Show a job until it has ended: its row, with what goes wrong above it, in a terminal; lines elsewhere."""
    console = make_console()
    shown: _Shown
    if as_json:
        shown = _JsonLines()
    elif console.is_terminal:
        shown = _Row(console)
    else:
        shown = _Lines(console)
    with shown:
        shown.job(summary)
        return _until_ended(client, summary, cursor, shown)


def _until_ended(client: Client, summary: JobSummary, cursor: str, shown: _Shown) -> JobSummary:
    """Show every event, and every second how the job is, though nothing happens; return how it ended.

    A job is seen to have ended before its last events come: those are waited for.
    """
    if summary.state in ENDED:
        return summary
    waits_until = math.inf
    with ThreadPoolExecutor(1) as pool, contextlib.closing(client):  # closed before the pool waits for what is asked
        items = client.watch(cursor, summary.job)
        asked, looked_at = pool.submit(next, items), time.monotonic()
        while True:
            wait_for([asked], timeout=_ASK_EVERY_S)
            ended = False
            if asked.done():
                item = asked.result()
                shown.event(item)
                ended = isinstance(item, Gap) or item.name == "job_ended"  # the end may be in the gap
                asked = pool.submit(next, items)
            if ended or time.monotonic() - looked_at >= _ASK_EVERY_S:
                with contextlib.suppress(MasterUnreachable):
                    summary = client.job(summary.job).summary
                    shown.job(summary)
                looked_at = time.monotonic()
                if summary.state in ENDED:
                    waits_until = min(waits_until, looked_at + _LAST_EVENTS_S)
                    if ended or looked_at >= waits_until:
                        return summary


class _Shown:
    """The display of a job that is waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def event(self, item: Event | Gap) -> None:
        """Show an event."""

    def job(self, summary: JobSummary) -> None:
        """Show the present state of the job."""


class _JsonLines(_Shown):
    """An event a line, for programs."""

    def event(self, item: Event | Gap) -> None:
        click.echo(event_json(item))


class _Lines(_Shown):
    """An event a line, and how the job is where there has been none for a while: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at = -math.inf

    def event(self, item: Event | Gap) -> None:
        self._say(event_line(item))

    def job(self, summary: JobSummary) -> None:
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._say(tables.job_line(summary))

    def _say(self, line: RenderableType) -> None:
        self._console.print(line, soft_wrap=True)
        self._said_at = time.monotonic()


class _Row(_Shown):
    """The job's row of the table, redrawn in place, with what matters scrolling above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._job: JobSummary | None = None
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def event(self, item: Event | Gap) -> None:
        if isinstance(item, Gap) or item.name in _TOLD_ABOVE:
            self._console.print(event_line(item, with_job=False), soft_wrap=True)

    def job(self, summary: JobSummary) -> None:
        self._job = summary

    def _draw(self) -> RenderableType:
        if self._job is None:
            return Text()
        return Group(tables.jobs_table([self._job], self._console.width), *tables.job_problems([self._job]))


def _end(job: JobSummary) -> str:
    lines = [
        f"{job.job} {job.state}: {job.committed:,} of {counted(job.wanted, 'episode')}, {counted(job.frames, 'frame')}"
    ]
    if job.why:
        lines.append(job.why)
    if job.failed or job.quarantined:
        lines.append(f"not made: {job.failed:,} without a plan, {job.quarantined:,} set aside")
    if job.quarantined:
        lines.append(f"why: nimbusctl logs {job.job}; once more: nimbusctl retry {job.job}")
    lines.append(f"output: {job.output}")
    return "\n".join(lines)
