"""`nimbusctl publish` and `nimbusctl verify`: from ledger and pieces to a dataset that can be trusted."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click
import orjson

from nimbusd.master.ledger import Ledger
from nimbusd.master.output import claim_output, committed_pieces, ledger_path, publish_job, recall_job
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.verify import verify_dataset

_OUTPUT = click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.command()
@_OUTPUT
@click.option("--final/--interim", default=True, help="Compact files to the format's sizes, or keep one per episode.")
def publish(output: Path, final: bool) -> None:
    """Publish what the job in OUTPUT has committed so far as OUTPUT/dataset."""
    output = output.resolve()
    job = recall_job(output)
    with claim_output(output), contextlib.closing(Ledger.read(ledger_path(output))) as ledger:
        dataset, episodes = publish_job(job, output, ledger, final=final)
    if dataset is None:
        raise StoreError(f"{output} has no committed episode yet. Run the job first.")
    click.echo(f"published {episodes} episodes: {dataset}")


@click.command()
@_OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(output: Path, as_json: bool) -> None:
    """Check OUTPUT: every committed piece against the ledger, and the published dataset as a reader sees it.

    OUTPUT may also be a dataset alone; then there is no ledger to compare with. Exit status 1 if anything is wrong.
    """
    output = output.resolve()
    faults: list[str] = []
    pieces = None
    if ledger_path(output).exists():
        job = recall_job(output)
        with contextlib.closing(Ledger.read(ledger_path(output))) as ledger:
            try:
                pieces = committed_pieces(job, output, ledger)
            except StoreError as error:
                faults.append(str(error))
    faults += verify_dataset(output, pieces)
    if as_json:
        sys.stdout.write(orjson.dumps({"ok": not faults, "faults": faults}).decode() + "\n")
    else:
        for fault in faults:
            click.echo(f"fault: {fault}")
        click.echo(f"{len(faults)} faults" if faults else f"OK: {output}")
    sys.exit(1 if faults else 0)
