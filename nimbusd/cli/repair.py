"""`nimbusctl repair`: make committed episodes again whose pieces are damaged or gone."""

from __future__ import annotations

import dataclasses
import logging
import sys
from functools import partial
from pathlib import Path

import click
import uvloop

from nimbusd.cli.connect import ClusterCommand, connect, json_option, print_done, print_json
from nimbusd.cli.progress import make_progress
from nimbusd.cli.run import EXIT_STATUS, run_job, slots_for
from nimbusd.config import SPARES
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.words import counted
from nimbusd.embedded import JobRun
from nimbusd.job import Job
from nimbusd.master.intake.adoption import Folders
from nimbusd.master.intake.repair import chosen, damaged, set_aside
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.ledger.reads import CommittedPiece
from nimbusd.master.output.folder import claim_output, ledger_gone, ledger_path, ledger_place, recall_job
from nimbusd.program.slot_options import slot_options
from nimbusd.replay.recorded import UnknownEpisode, check_episode
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES, piece_faults, read_piece
from nimbusd.supervisor.orphans import adopt_orphans


@click.command(
    cls=ClusterCommand,
    epilog="Example: nimbusctl repair out/nav_mesh, or of two episodes: nimbusctl repair out/nav_mesh kitchen/5 hall/0",
)
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("episodes", nargs=-1, metavar="[SCENE/INDEX]...")
@slot_options
@click.option("--dry-run", is_flag=True, help="Only list what would be made again.")
@json_option
def repair(
    output: Path,
    episodes: tuple[str, ...],
    workers: int | None,
    gpus: tuple[int, ...] | None,
    slots_per_gpu: int | None,
    spares: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make again the committed episodes of OUTPUT whose pieces are damaged or gone, or those that are named.

    All pieces are read and compared with their checksums. What is replaced goes to OUTPUT/.nimbusd/trash. The output of
    a run is repaired here; one of a cluster by its master, which is asked to.

    Exit status: 0 whole again (or the master has been told), 1 not all could be made again, 2 wrong usage.
    """
    output = output.resolve()
    job = recall_job(output)
    named = list(dict.fromkeys(_key(job, text) for text in episodes))
    if ledger_place(output).path != ledger_path(output):
        _by_master(job, output, named, dry_run=dry_run, as_json=as_json)
        return
    if not ledger_path(output).is_file():
        raise ledger_gone(output)
    with claim_output(output), Ledger.open(ledger_path(output)) as ledger:
        pieces = _to_replace(job, output, ledger, named)
        if not dry_run:
            set_aside(output, pieces)
            ledger.put_back(JobId(job.name), [piece.key for piece in pieces])
    if not pieces or dry_run:
        _tell([piece.key for piece in pieces], as_json)
        return
    slots = slots_for(job, workers, slots_per_gpu, gpus)
    logging.getLogger().setLevel(logging.ERROR)  # the run shows as progress
    progress = make_progress(as_json)
    job = dataclasses.replace(job, output=output)
    kept = SPARES if spares is None else spares
    adopt_orphans()
    with progress:
        ended = uvloop.run(run_job(partial(JobRun, job, slots, progress.see, spares=kept)))
    progress.summarize(ended)
    sys.exit(EXIT_STATUS[ended.status])


def _to_replace(job: Job, output: Path, ledger: Ledger, named: list[EpisodeKey]) -> list[CommittedPiece]:
    name = JobId(job.name)
    if named:
        return chosen(name, ledger, named)
    pieces = []
    for piece, fault in damaged(output, name, ledger, deep=True):
        click.echo(f"{piece.key.scene}/{piece.key.index}: {fault}", err=True)
        pieces.append(piece)
    return pieces


def _by_master(job: Job, output: Path, named: list[EpisodeKey], *, dry_run: bool, as_json: bool) -> None:
    """Find damaged pieces by their own manifests, and have the master make them again with those that it misses."""
    keys = named or list(_torn(job, output))
    if dry_run:
        _tell(keys, as_json, ", and those of which the master misses the pieces")
        return
    with connect() as client:
        done = client.repair(job.name, [(key.scene, key.index) for key in keys])
    print_done(done, as_json)


def _tell(keys: list[EpisodeKey], as_json: bool, and_more: str = "") -> None:
    """Print which episodes would be made again. and_more: words for those that only the master can name."""
    if as_json:
        print_json({"episodes": [f"{key.scene}/{key.index}" for key in keys]})
    elif keys or and_more:
        click.echo(f"{counted(len(keys), 'episode')} would be made again{and_more}")
    else:
        click.echo("no committed episode is damaged or gone: nothing to repair")


def _torn(job: Job, output: Path) -> list[EpisodeKey]:
    folders = Folders(job)
    torn = []
    for entry in sorted((output / PIECES).iterdir()):
        found = folders.found(entry.name)
        if found.key is None or found.draft:
            continue
        try:
            faults = piece_faults(output, read_piece(output, entry.name), deep=True)
        except StoreError as error:
            faults = [str(error)]
        if faults:
            click.echo(f"{found.key.scene}/{found.key.index}: {faults[0]}", err=True)
            torn.append(found.key)
    return torn


def _key(job: Job, text: str) -> EpisodeKey:
    scene, slash, index = text.removeprefix(f"{job.name}/").rpartition("/")
    if not slash or not index.isdecimal():
        raise click.BadParameter(f"'{text}' is not SCENE/INDEX, such as {job.scenes[0]}/0", param_hint="EPISODE")
    try:
        check_episode(job, scene, int(index))
    except UnknownEpisode as error:
        raise click.BadParameter(str(error), param_hint="EPISODE") from error
    return EpisodeKey(JobId(job.name), scene, int(index))
