"""`nimbusctl status`, `logs`, `cancel`, `retry`: jobs of a cluster, and what becomes of them.

What reads an output folder is imported where one is named: it loads numpy and pydantic.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from nimbusd.cli import tables
from nimbusd.cli.connect import (
    ENDED_BADLY,
    EXIT_HELP,
    USAGE,
    ClusterCommand,
    complete_job,
    connect,
    json_option,
    print_done,
    print_json,
)
from nimbusd.cli.console import make_console
from nimbusd.client import Client, FailureReport

if TYPE_CHECKING:
    from nimbusd.job import Job

_FAILED = ("incomplete", "cancelled")


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl status my_job. {EXIT_HELP} With JOB, 1: it failed.")
@click.argument("job", required=False, metavar="[JOB|OUTPUT]", shell_complete=complete_job)
@click.option("--open", "only_open", is_flag=True, help="Leave out jobs that have ended.")
@json_option
def status(job: str | None, only_open: bool, as_json: bool) -> None:
    """Show the state of all jobs, or all about one JOB: progress, scenes, failures, and nodes that cannot work on it.

    Instead of a master's job, the OUTPUT folder of a job that was run here can be named, such as out/my_job.
    """
    console = make_console()
    if job is not None and (output := _output(job)) is not None:
        from nimbusd.master.output.report import job_in_output

        report = job_in_output(output)
    else:
        with connect() as client:
            if job is None:
                jobs = client.jobs(ended=not only_open)
                if as_json:
                    print_json(jobs)
                elif jobs:
                    console.print(tables.jobs_table(jobs, console.width))
                    for line in tables.job_problems(jobs):
                        console.print(line)
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
@click.argument("job", metavar="JOB|OUTPUT", shell_complete=complete_job)
@click.option("--episode", metavar="SCENE/INDEX", help="Only this episode.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The most episodes to show.")
@json_option
def logs(job: str, episode: str | None, limit: int, as_json: bool) -> None:
    """Episodes of JOB that were not made: the reason, and the last output of the process that worked on them.

    Instead of a master's job, the OUTPUT folder of a job that was run here can be named, such as out/my_job.
    """
    wanted = None if episode is None else _episode(episode)

    def matching(failures: Iterable[FailureReport]) -> list[FailureReport]:
        return list(itertools.islice((f for f in failures if wanted in (None, (f.scene, f.index))), limit))

    if (output := _output(job)) is not None:
        from nimbusd.master.output.folder import recall_job
        from nimbusd.master.output.report import failures_in_output, job_in_output

        count = job_in_output(output).summary
        shown, total = matching(failures_in_output(output)), count.failed + count.quarantined
        made_of = recall_job(output) if wanted else None
    else:
        with connect() as client:
            total = client.failures_page(job, limit=0).total
            shown = matching(client.failures(job))
            made_of = _job_of(client, job) if wanted and not shown else None
    if wanted is not None and made_of is not None and not shown:
        _check_episode(made_of, *wanted)
    if as_json:
        print_json({"job": job, "total": total, "failures": [_flat(report) for report in shown]})
        return
    console = make_console()
    for failure in shown:
        console.print(tables.failure(failure))
    if wanted is not None and not shown:
        console.print(f"Episode {episode} of {job} has no failure.", markup=False)
    elif not shown:
        console.print(f"No episode of {job} has failed for good or was set aside.", markup=False)
    elif wanted is None and total > len(shown):
        console.print(f"… and {total - len(shown):,} more; --limit shows them", style="dim")


def _flat(report: FailureReport) -> dict[str, object]:
    """A report with the words of its failure beside its own, by the keys that programs read."""
    failure = report.failure
    return {
        "scene": report.scene,
        "index": report.index,
        "attempt": report.attempt,
        "state": report.state,
        "stage": failure.stage,
        "reason": failure.reason,
        "detail": failure.detail,
        "evidence": failure.evidence,
        "worker": report.node,
    }


def _output(text: str) -> Path | None:
    """The output folder that is meant; None for the name of a master's job."""
    named = click.get_current_context().get_parameter_source("master") == ParameterSource.COMMANDLINE
    path = Path(text).expanduser()
    if "/" in text or text in (".", "..") or (not named and path.is_dir() and _is_output(path)):
        return path.absolute()
    return None


def _is_output(folder: Path) -> bool:
    """True where a job was run with `folder` as its output."""
    from nimbusd.master.output.folder import ledger_path

    return ledger_path(folder).is_file()


def _job_of(client: Client, name: str) -> Job | None:
    """The job as its output folder has it; None where that cannot be read here."""
    from nimbusd.master.ledger.errors import LedgerError
    from nimbusd.master.output.folder import recall_job

    try:
        return recall_job(Path(client.job(name).summary.output))
    except LedgerError:
        return None


def _check_episode(job: Job, scene: str, index: int) -> None:
    """End with status 2, and the nearest ones, if the job has no such episode."""
    from nimbusd.replay.recorded import UnknownEpisode, check_episode

    try:
        check_episode(job, scene, index)
    except UnknownEpisode as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)


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


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl forget my_job. {EXIT_HELP}")
@click.argument("job", shell_complete=complete_job)
@click.option(
    "--keep-output/--delete-output",
    default=True,
    show_default=True,
    help="Keep or remove what nimbusd stored in its output.",
)
@json_option
def forget(job: str, keep_output: bool, as_json: bool) -> None:
    """Remove JOB from the master: one that is over, cancelled or held up. Its name is free then.

    The output stays, unless --delete-output is given, and the same job, submitted again, adopts it.
    """
    with connect() as client:
        done = client.forget(job, delete_output=not keep_output)
    print_done(done, as_json)
