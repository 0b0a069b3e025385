"""`nimbusctl output`: whose an output folder is, and how it changes hands."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import click

from nimbusd.cli.connect import ClusterCommand, connect
from nimbusd.client import ClientError
from nimbusd.core.words import counted
from nimbusd.master.intake.rebuild import rebuild_ledger
from nimbusd.master.ledger.ledger import LedgerError
from nimbusd.master.ledger.reads import LedgerIdentity
from nimbusd.master.output.folder import claim_output, ledger_path, ledger_place, owner_of, recall_job
from nimbusd.master.output.owner import Owner, write_owner
from nimbusd.program import Commands
from nimbusd.stages.errors import StoreError

_OUTPUT = click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group(cls=Commands)
def output() -> None:
    """Move an output folder, let another ledger adopt it, or rebuild its ledger."""


@output.command(short_help="Whose an output is.", epilog="Example: nimbusctl output owner out/nav_mesh")
@_OUTPUT
def owner(output: Path) -> None:
    """Tell which job OUTPUT belongs to, and where its ledger is."""
    mark = owner_of(output.resolve())
    if mark is None:
        click.echo(f"{output} belongs to no job")
        return
    place = ledger_place(output.resolve())
    click.echo(f"{output} belongs to job {mark.job}; its ledger is {place}" + ("" if place.here else " (not here)"))


@output.command(
    cls=ClusterCommand,
    short_help="Move an output.",
    epilog="Example: nimbusctl output move out/nav_mesh /data/nav_mesh",
)
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def move(output: Path, folder: Path) -> None:
    """Move OUTPUT to FOLDER on the same file system, or say that it has been moved there (OUTPUT is gone by then).

    The job goes on there: that of a run with its new --output, that of a cluster by itself.
    """
    before, now = (Path(os.path.abspath(place)) for place in (output, folder))
    job = _moved(before, now)
    if ledger_place(now).path == ledger_path(now):
        click.echo(f"{now} belongs to job {job}, as before: go on with `nimbusctl run JOB --output {now}`")
        return
    try:
        with connect() as client:
            done = client.relocate(job, str(now))
    except ClientError:
        click.echo(
            f"the folder is {now} now, but its master does not know it yet: give the same command again when that can "
            "be reached",
            err=True,
        )
        raise
    click.echo(done.detail)


def _moved(before: Path, now: Path) -> str:
    """Move the folder if that is still to be done. Returns the job's name."""
    if before.exists():
        job = recall_job(before)
        with claim_output(before):
            if now.exists():
                raise StoreError(f"{now} exists already. Name a folder that does not.")
            try:
                now.parent.mkdir(parents=True, exist_ok=True)
                os.rename(before, now)
            except OSError as error:
                way_out = (
                    " Copy the folder there, remove the first, and give this command again."
                    if error.errno == errno.EXDEV
                    else ""
                )
                raise StoreError(f"cannot move {before} to {now}: {error.strerror}.{way_out}") from error
        return job.name
    if not now.exists():
        raise StoreError(f"neither {before} nor {now} exists. Name the output folder, and where it is to be or is now.")
    return recall_job(now).name


@output.command(
    short_help="Let another ledger take an output over.",
    epilog="Example: nimbusctl output adopt out/nav_mesh, and then submit or run the job",
)
@_OUTPUT
def adopt(output: Path) -> None:
    """Let whoever runs the job of OUTPUT next take over what lies there, whatever its ledger knows.

    For a ledger that was restored from a copy by hand, and for a mark that is damaged. Nothing is removed.
    """
    folder = output.resolve()
    job = recall_job(folder)
    with claim_output(folder):
        place = ledger_place(folder)
        try:
            mark = owner_of(folder)
        except LedgerError as error:
            click.echo(f"warning: {error}", err=True)
            mark = None
        if mark is None:
            mark = Owner(job.name, job.fingerprint(), LedgerIdentity("", 0, ""), place.host, place.path)
        write_owner(folder, dataclasses.replace(mark, released=True))
    click.echo(f"the next run or master with job {job.name} adopts {folder}")


@output.command(
    short_help="Make the ledger of an output from its pieces.", epilog="Example: nimbusctl output rebuild out/nav_mesh"
)
@_OUTPUT
def rebuild(output: Path) -> None:
    """Make a ledger for OUTPUT from the pieces that lie there, so that it can be published, verified and gone on with.

    For an output whose ledger is lost. The ledger of a run that is there is kept beside under another name.
    """
    folder = output.resolve()
    job = dataclasses.replace(recall_job(folder), output=folder)
    adopted = rebuild_ledger(job)
    click.echo(f"{ledger_path(folder)} has {counted(adopted, 'episode')} of job {job.name}")
