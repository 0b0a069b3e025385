"""`nimbusctl export DATASET`: its annotations in the formats of COCO or KITTI."""

from __future__ import annotations

from pathlib import Path

import click

from nimbusd.core.words import counted
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.export import export_coco, export_kitti
from nimbusd.stages.store.read import open_dataset

_FORMATS = {"coco": export_coco, "kitti": export_kitti}


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", "kind", type=click.Choice(sorted(_FORMATS)), required=True, help="What to write.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Only each n-th frame.")
def export(dataset: Path, kind: str, out: Path, every: int) -> None:
    """Write the boxes, masks, depth and frames of a DATASET (or a job's output folder) for other programs."""
    try:
        count = _FORMATS[kind](open_dataset(dataset), out, every=every)
    except NimbusError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{counted(count, 'frame')}: {out}")
