"""`nimbusctl import SOURCE`: what was written for the open-source engine, as ours: a configuration, or a workflow."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import orjson

from nimbusd.job import JobError, Problem
from nimbusd.job.imported import import_config
from nimbusd.job.ported import port_workflow


@click.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the result here instead of showing it.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that relative paths in a configuration start at [default: the current one].",
)
@click.option("--force", is_flag=True, help="Write over a file that is there, SOURCE itself included.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the result and the remarks.")
def import_(source: Path, out: Path | None, root: Path | None, force: bool, as_json: bool) -> None:
    """Turn a configuration with load_stage, plan_stage … into a job file, or a workflow (a .py file) into one of ours.

    Of a workflow the difference is shown. What has no counterpart, or is left to do, is listed with its line. Exit
    status 2: SOURCE cannot be imported, and why, line by line; nothing is written.
    """
    try:
        if source.suffix == ".py":
            if root is not None:
                raise click.UsageError("--root is for configurations: a workflow has no paths that could be read")
            _workflow(source, out, force, as_json)
        else:
            _config(source, out, root, force, as_json)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(2)


def _config(config: Path, out: Path | None, root: Path | None, force: bool, as_json: bool) -> None:
    folder = (out.parent if out else Path.cwd()).resolve()
    imported = import_config(config, root=(root or Path.cwd()).resolve(), job_folder=folder)
    _write(out, imported.text(), force)
    if as_json:
        _tell_json({"job": imported.job}, imported.remarks)
        return
    _tell(imported.remarks)
    if out is None:
        click.echo(imported.text(), nl=False)
    else:
        click.echo(f"wrote {out}; next: nimbusctl check {out}", err=True)


def _workflow(path: Path, out: Path | None, force: bool, as_json: bool) -> None:
    ported = port_workflow(path)
    _write(out, ported.text, force)
    if as_json:
        _tell_json({"text": ported.text, "diff": ported.diff}, ported.remarks)
        return
    click.echo(ported.diff, nl=False)
    _tell(ported.remarks)
    if out is not None:
        click.echo(f"wrote {out}; next: what is remarked on, then nimbusctl check of a job that names it", err=True)


def _write(out: Path | None, text: str, force: bool) -> None:
    if out is None:
        return
    if out.exists() and not force:
        raise JobError([Problem(str(out), "is there already; give another --out, or --force")])
    out.write_text(text, encoding="utf-8")


def _tell(remarks: Iterable[Problem]) -> None:
    for remark in remarks:
        click.echo(f"remark: {remark}", err=True)


def _tell_json(result: dict[str, Any], remarks: Iterable[Problem]) -> None:
    rows = [{"where": remark.where, "text": remark.text} for remark in remarks]
    click.echo(orjson.dumps({**result, "remarks": rows}, option=orjson.OPT_INDENT_2).decode())
