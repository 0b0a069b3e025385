"""`nimbusctl run JOB`: master and workers in one process tree, with progress."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import uvloop

from nimbusd.cli.progress import make_progress
from nimbusd.config import SLOTS_PER_GPU, SPARES
from nimbusd.core.words import counted
from nimbusd.embedded import JobRun
from nimbusd.events import JobEnded
from nimbusd.job import Job, JobError, read_apart
from nimbusd.node.slots import Slot, discover
from nimbusd.program.slot_options import slot_options
from nimbusd.show.scene_warnings import scene_warnings
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.read import open_dataset
from nimbusd.supervisor.orphans import adopt_orphans

_MOST_TOLD = 10
EXIT_STATUS = {"complete": 0, "incomplete": 1, "stopped": 1, "interrupted": 130}


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@slot_options
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, e.g. scenes.0.path=a.glb."
)
@click.option("--retry-quarantined", is_flag=True, help="Give episodes that were set aside another chance.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Take over what lies in the output also if a newer ledger wrote it, or other settings of the same seed.",
)
@click.option(
    "--accept-environment", is_flag=True, help="Go on with the packages that are installed now, and record the change."
)
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
    adopt: bool,
    accept_environment: bool,
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
    slots = slots_for(checked, workers, slots_per_gpu, gpus)
    progress = make_progress(as_json)
    kept = SPARES if spares is None else spares
    adopt_orphans()
    with progress:
        job_run = partial(
            JobRun,
            checked,
            slots,
            progress.see,
            spares=kept,
            retry_quarantined=retry_quarantined,
            accept_environment=accept_environment,
            adopt=adopt,
        )
        ended = uvloop.run(run_job(job_run))
    progress.summarize(ended)
    if ended.dataset and not as_json:
        _tell_scenes(Path(ended.dataset))
    sys.exit(EXIT_STATUS[ended.status])


def _tell_scenes(dataset: Path) -> None:
    """Print what loaders doubted or mended in the dataset's scenes; what cannot be read, `verify` tells."""
    try:
        told = scene_warnings(open_dataset(dataset))
    except StoreError:
        return
    for line in told[:_MOST_TOLD]:
        click.echo(f"warning: {line}", err=True)
    if len(told) > _MOST_TOLD:
        click.echo(f"… and {counted(len(told) - _MOST_TOLD, 'warning')} more: nimbusctl verify {dataset}", err=True)


def _checked_job(path: Path, output: Path | None, overrides: tuple[str, ...]) -> Job:
    """The job, after everything that can be checked before running was."""
    try:
        checked = read_apart(path, output=output, overrides=overrides)
        if checked.findings.errors:
            raise JobError(checked.findings.errors)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(2)
    for warning in checked.findings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return checked.job


def slots_for(
    job: Job, workers: int | None, slots_per_gpu: int | None, gpus: tuple[int, ...] | None
) -> tuple[Slot, ...]:
    """Find the slots of a job's compute workers, by the options that were given. Raises ConfigError."""
    wanted = job.workers if workers is None else workers
    return discover(wanted, SLOTS_PER_GPU if slots_per_gpu is None else slots_per_gpu, gpus)


async def run_job(make: Callable[[], JobRun]) -> JobEnded:
    """Run a job in this process; SIGINT and SIGTERM end it, after what has begun or, the second time, at once."""
    job_run = make()
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
