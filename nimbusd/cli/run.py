"""`nimbusctl run JOB`: master and workers in one process tree, with progress."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click
import uvloop

from nimbusd.cli.progress import LiveProgress, Progress, make_progress
from nimbusd.config import SLOTS_PER_GPU, SPARES, ConfigError
from nimbusd.embedded import JobRun
from nimbusd.events import JobEnded
from nimbusd.job import Job, JobError, check_job, load_job
from nimbusd.slot_options import slot_options
from nimbusd.worker.slots import Slot, discover

EXIT_STATUS = {"complete": 0, "incomplete": 1, "stopped": 1, "interrupted": 130}


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@slot_options
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, e.g. scenes.0.path=a.glb."
)
@click.option("--retry-quarantined", is_flag=True, help="Give episodes that were set aside another chance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON event per line instead of progress.")
@click.option("-v", "--verbose", is_flag=True, help="Log what the daemon does to standard error.")
def run(
    job: Path,
    output: Path | None,
    workers: int | None,
    gpus: tuple[int, ...] | None,
    slots_per_gpu: int | None,
    spares: int | None,
    overrides: tuple[str, ...],
    retry_quarantined: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run a JOB file on this machine. The same command again makes only what is missing.

    Ctrl-C finishes the episodes that have begun, then stops; a second Ctrl-C stops at once. Nothing that was
    committed is lost either way.

    Exit status: 0 complete, 1 incomplete or stopped by an error, 2 a bad job file, 130 interrupted.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    checked = _checked_job(job, output, overrides)
    wanted = checked.workers if workers is None else workers
    slots = _slots(wanted, SLOTS_PER_GPU if slots_per_gpu is None else slots_per_gpu, gpus)
    progress = make_progress(as_json)
    kept = SPARES if spares is None else spares
    with progress:
        ended = uvloop.run(_run(checked, slots, kept, progress, retry_quarantined))
    progress.summarize(ended)
    sys.exit(EXIT_STATUS[ended.status])


def _checked_job(path: Path, output: Path | None, overrides: tuple[str, ...]) -> Job:
    """The job, after everything that can be checked before running was."""
    try:
        loaded = load_job(path, output=output, overrides=overrides)
        findings = check_job(loaded)
        if findings.errors:
            raise JobError(path, findings.errors)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(2)
    for warning in findings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded.job


def _slots(workers: int | None, slots_per_gpu: int, gpus: tuple[int, ...] | None) -> tuple[Slot, ...]:
    try:
        return discover(workers, slots_per_gpu, gpus)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


async def _run(
    job: Job, slots: tuple[Slot, ...], spares: int, progress: Progress | LiveProgress, retry_quarantined: bool
) -> JobEnded:
    job_run = JobRun(job, slots, progress.see, spares=spares, retry_quarantined=retry_quarantined)
    loop = asyncio.get_running_loop()
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            job_run.drain("asked to stop; finishing what has begun (again to stop at once)")
        else:
            job_run.kill()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return await job_run.run()
