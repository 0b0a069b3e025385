"""`nimbusctl publish` and `nimbusctl verify`: from ledger and pieces to a dataset that can be trusted."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from nimbusd.master.ledger import LedgerError
from nimbusd.master.output import (
    LedgerPlace,
    claim_output,
    committed_pieces,
    ledger_place,
    publish_job,
    read_ledger,
    recall_job,
    stored_faults,
)
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.verify import verify_dataset
from nimbusd.stages.types import Piece

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
    with claim_output(output), read_ledger(output) as ledger:
        dataset, episodes = publish_job(job, output, ledger, final=final)
    if dataset is None:
        raise StoreError(f"{output} has no committed episode yet. Run the job first.")
    click.echo(f"published {episodes} episodes: {dataset}")


@click.command()
@_OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(output: Path, as_json: bool) -> None:
    """Check OUTPUT: every committed piece against the ledger, and the published dataset as a reader sees it.

    Where the ledger is on another machine, pieces are checked by their own manifests. OUTPUT may also be a dataset
    alone. Exit status 1 if anything is wrong.
    """
    output = output.resolve()
    place = _place(output)
    faults, pieces = _pieces(output, place)
    faults += verify_dataset(output, pieces)
    note = ""
    if place is not None and not place.here:
        note = f"not compared with the ledger, which is {place}"
    if as_json:
        sys.stdout.write(orjson.dumps({"ok": not faults, "faults": faults, "note": note}).decode() + "\n")
    else:
        for fault in faults:
            click.echo(f"fault: {fault}")
        click.echo(f"{len(faults)} faults" if faults else f"OK: {output}")
        if note:
            click.echo(note)
    sys.exit(1 if faults else 0)


def _place(output: Path) -> LedgerPlace | None:
    """Where the ledger is; None for a dataset alone."""
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
