"""`nimbusctl backup` and `nimbusctl restore`: the ledger, which is all that a master cannot make again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from nimbusd.core.words import counted
from nimbusd.master.backup import Backup, make_backup
from nimbusd.master.backup import restore as restore_backup

_PLACE = click.Path(file_okay=False, path_type=Path)


@click.command(epilog="Example: nimbusctl backup /var/lib/nimbusd/master /backups/nimbus-monday.tar.gz")
@click.argument("place", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(place: Path, file: Path) -> None:
    """Copy the ledger of PLACE, a master's state folder or the output of a run, to FILE, also while it is in use.

    Of a state folder, keys and allow-list go along, so FILE is as secret as they are. Episodes lie in the outputs and
    are not copied; after a restore, those that were stored since are adopted.
    """
    made = make_backup(place, file)
    click.echo(f"backed up {_jobs(made)} of {place}: {file}")


@click.command(epilog="Example: nimbusctl restore /backups/nimbus-monday.tar.gz /var/lib/nimbusd/master --replace")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("place", type=_PLACE)
@click.option("--replace", is_flag=True, help="Put it in the place of a ledger that is there, which is kept beside.")
def restore(file: Path, place: Path, replace: bool) -> None:
    """Put the ledger of a backup FILE into PLACE, a master's state folder or the output of a run.

    What is stopped there goes on by its usual command, and adopts the episodes that were stored after the backup.
    """
    restored = restore_backup(file, place, replace=replace)
    made = datetime.fromtimestamp(restored.made_unix_s).astimezone().isoformat(" ", "seconds")
    click.echo(f"restored {_jobs(restored)} to {place}, as it was at {made} in {restored.place} on {restored.host}")


def _jobs(backup: Backup) -> str:
    names = ", ".join(backup.jobs[:5]) + (", …" if len(backup.jobs) > 5 else "")
    if len(backup.jobs) == 1:
        return f"the ledger with job {names}"
    return f"the ledger with {counted(len(backup.jobs), 'job')}" + (f" ({names})" if names else "")
