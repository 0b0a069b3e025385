"""`nimbusctl publish` and `nimbusctl verify`: from ledger and pieces to a dataset that can be trusted."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import orjson

from nimbusd.core.records import JobState
from nimbusd.core.words import counted
from nimbusd.job import Job
from nimbusd.master.ledger.ledger import LedgerError
from nimbusd.master.output.folder import (
    LedgerPlace,
    claim_output,
    committed_pieces,
    ledger_place,
    read_ledger,
    recall_job,
    stored_faults,
)
from nimbusd.master.output.report import job_in_output
from nimbusd.master.publish.apart import NotPublished, publish_apart, publish_limits
from nimbusd.master.publish.published import check_place
from nimbusd.show.made_with import made_with_lines
from nimbusd.show.scene_warnings import scene_warnings
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.made_with import MadeWith, environment_json
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from nimbusd.stages.types import Piece
from nimbusd.supervisor.orphans import adopt_orphans

_FAULTY, _INCOMPLETE = 1, 7
_OUTPUT = click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.command()
@_OUTPUT
@click.option("--final/--interim", default=True, help="Compact files to the format's sizes, or keep one per episode.")
def publish(output: Path, final: bool) -> None:
    """Publish what the job in OUTPUT has committed so far as OUTPUT/dataset.

    The job's ledger must be on this machine; a master publishes its jobs by itself.
    """
    output = output.resolve()
    job = recall_job(output)
    adopt_orphans()
    with claim_output(output), read_ledger(output) as ledger:
        check_place(output)
        dataset, episodes = asyncio.run(_publish(job, ledger.path, final))
    if dataset is None:
        raise StoreError(f"{output} has no committed episode yet. Run the job first.")
    click.echo(f"published {counted(episodes, 'episode')}: {dataset}")


async def _publish(job: Job, ledger: Path, final: bool) -> tuple[Path | None, int]:
    try:
        return await publish_apart(job, ledger, publish_limits(job), final=final)
    except NotPublished as error:
        click.echo(error.evidence, err=True, nl=False)
        raise


@click.command()
@_OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(output: Path, as_json: bool) -> None:
    """Check OUTPUT: every committed piece against the ledger, and the published dataset as a reader sees it.

    Where the ledger is on another machine, pieces are checked by their own manifests. OUTPUT may also be a dataset
    alone, or one that you may only read. It also lists what loaders doubted or mended in its scenes, with which
    packages the dataset was made, and which episodes with others.

    Exit status: 0 all is well, 1 something is wrong, 7 nothing is wrong with what is there, but episodes are missing.
    """
    output = output.resolve()
    place = _place(output)
    faults, pieces = _pieces(output, place)
    faults += verify_dataset(output, pieces)
    environments, told = _of_dataset(output)
    note = missing = ""
    if place is not None and place.here:
        missing = _missing(output)
    elif place is not None:
        note = f"not compared with the ledger, which is {place}"
    if as_json:
        row = {"ok": not faults and not missing, "faults": faults, "missing": missing, "note": note}
        row |= {"warnings": told} | environment_json(environments)
        sys.stdout.write(orjson.dumps(row).decode() + "\n")
    else:
        for fault in faults:
            click.echo(f"fault: {fault}")
        if faults:
            click.echo(counted(len(faults), "fault"))
        else:
            click.echo(f"incomplete: {output}: {missing}" if missing else f"OK: {output}")
        for line in told:
            click.echo(f"warning: {line}")
        for line in made_with_lines(environments):
            click.echo(line)
        if note:
            click.echo(note)
    sys.exit(_FAULTY if faults else _INCOMPLETE if missing else 0)


def _of_dataset(output: Path) -> tuple[list[MadeWith], list[str]]:
    """The packages that the dataset was made with, and the warnings about its scenes.

    Nothing where that cannot be read, which is a fault already.
    """
    try:
        dataset = open_dataset(output)
        return dataset.environments, scene_warnings(dataset)
    except StoreError:
        return [], []


def _missing(output: Path) -> str:
    """The rest of the job, in words; empty if it is complete."""
    summary = job_in_output(output).summary
    if summary.state == JobState.COMPLETE.value:
        return ""
    parts = [f"{summary.committed:,} of {counted(summary.wanted, 'episode')} committed"]
    parts += [f"{summary.failed:,} had no plan"] * bool(summary.failed)
    parts += [f"{summary.quarantined:,} were set aside"] * bool(summary.quarantined)
    return ", ".join(parts)


def _place(output: Path) -> LedgerPlace | None:
    """Find the ledger; None for a dataset alone."""
    try:
        return ledger_place(output)
    except LedgerError:
        if (output / PIECES).exists():
            raise
        return None


def _pieces(output: Path, place: LedgerPlace | None) -> tuple[list[str], list[Piece] | None]:
    """Faults of the pieces themselves, and the committed ones if the ledger is at hand."""
    if place is None:
        return [], None
    if not place.here:
        return stored_faults(output), None
    job = recall_job(output)
    with read_ledger(output) as ledger:
        try:
            return [], committed_pieces(job, output, ledger)
        except StoreError as error:
            return [str(error)], None
