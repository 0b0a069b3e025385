"""`nimbusctl import CONFIG`: a job file from a configuration of the open-source engine."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from nimbusd.job import JobError
from nimbusd.job.imported import import_config


@click.command(name="import")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the job file here instead of showing it.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that relative paths in CONFIG start at [default: the current one].",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the job and the remarks.")
def import_(config: Path, out: Path | None, root: Path | None, force: bool, as_json: bool) -> None:
    """Turn a CONFIG with load_stage, plan_stage … into a job file.

    What has no counterpart is listed with its line. Exit status 2: CONFIG cannot be imported.
    """
    folder = (out.parent if out else Path.cwd()).resolve()
    try:
        imported = import_config(config, root=(root or Path.cwd()).resolve(), job_folder=folder)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(2)
    if out is not None:
        if out.exists() and not force:
            click.echo(f"error: {out} is there already; give another --out, or --force", err=True)
            sys.exit(2)
        out.write_text(imported.text(), encoding="utf-8")
    if as_json:
        remarks = [{"where": remark.where, "text": remark.text} for remark in imported.remarks]
        click.echo(orjson.dumps({"job": imported.job, "remarks": remarks}, option=orjson.OPT_INDENT_2).decode())
        return
    for remark in imported.remarks:
        click.echo(f"remark: {remark}", err=True)
    if out is None:
        click.echo(imported.text(), nl=False)
    else:
        click.echo(f"wrote {out}; next: nimbusctl check {out}", err=True)
