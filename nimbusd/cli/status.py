"""`nimbusctl status`, `logs`, `cancel`, `retry`: jobs of a cluster, and what becomes of them."""

from __future__ import annotations

import itertools
import sys

import click
from rich.console import Console

from nimbusd.cli import tables
from nimbusd.cli.connect import (
    ENDED_BADLY,
    EXIT_HELP,
    ClusterCommand,
    complete_job,
    connect,
    json_option,
    print_done,
    print_json,
)

_FAILED = ("incomplete", "cancelled")


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl status my_job. {EXIT_HELP} With JOB, 1: it failed.")
@click.argument("job", required=False, shell_complete=complete_job)
@click.option("--open", "only_open", is_flag=True, help="Leave out jobs that have ended.")
@json_option
def status(job: str | None, only_open: bool, as_json: bool) -> None:
    """How the jobs are, or all about one JOB: its progress, its scenes, its failures, and who cannot work on it."""
    console = Console(highlight=False)
    with connect() as client:
        if job is None:
            jobs = client.jobs(ended=not only_open)
            if as_json:
                print_json(jobs)
            elif jobs:
                console.print(tables.jobs_table(jobs, console.width))
            else:
                console.print("There are no jobs. Submit one: nimbusctl submit JOB.yaml")
            return
        report = client.job(job)
    if as_json:
        print_json(report)
    else:
        console.print(tables.job_report(report, console.width))
    if report.summary.state in _FAILED:
        sys.exit(ENDED_BADLY)


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl logs my_job --episode kitchen/5. {EXIT_HELP}")
@click.argument("job", shell_complete=complete_job)
@click.option("--episode", metavar="SCENE/INDEX", help="Only this episode.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many episodes.")
@json_option
def logs(job: str, episode: str | None, limit: int, as_json: bool) -> None:
    """Episodes of JOB that were not made: the reason, and the last output of the process that worked on them."""
    wanted = None if episode is None else _episode(episode)
    with connect() as client:
        total = client.failures_page(job, limit=0).total
        matching = (f for f in client.failures(job) if wanted in (None, (f.scene, f.index)))
        shown = list(itertools.islice(matching, limit))
    if as_json:
        print_json({"job": job, "total": total, "failures": shown})
        return
    console = Console(highlight=False)
    for failure in shown:
        console.print(tables.failure(failure))
    if wanted is not None and not shown:
        console.print(f"Episode {episode} of {job} has no failure.", markup=False)
    elif not shown:
        console.print(f"No episode of {job} has failed for good or was set aside.", markup=False)
    elif wanted is None and total > len(shown):
        console.print(f"… and {total - len(shown):,} more; --limit shows them", style="dim")


def _episode(text: str) -> tuple[str, int]:
    scene, slash, index = text.rpartition("/")
    if not slash or not scene or not index.isdecimal():
        raise click.BadParameter(f"'{text}' is not SCENE/INDEX, such as kitchen/5", param_hint="--episode")
    return scene, int(index)


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl cancel my_job. {EXIT_HELP}")
@click.argument("job", shell_complete=complete_job)
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Stop JOB. What it has committed stays and is published; submitting it again goes on with the rest."""
    with connect() as client:
        done = client.cancel(job)
    print_done(done, as_json)


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl retry my_job. {EXIT_HELP}")
@click.argument("job", shell_complete=complete_job)
@json_option
def retry(job: str, as_json: bool) -> None:
    """Give the episodes of JOB that were set aside another chance, for instance after a fix of their scene."""
    with connect() as client:
        done = client.retry(job)
    print_done(done, as_json)
