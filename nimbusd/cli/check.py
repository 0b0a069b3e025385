"""`nimbusctl check JOB`: everything that can be wrong with a job, told before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nimbusd.job import Findings, JobError, LoadedJob, Problem, check_job, load_job
from nimbusd.master.ledger import LedgerError, fingerprints
from nimbusd.master.output import ledger_path

_SHOWN_SCENES = 4


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, e.g. scenes.0.path=a.glb."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def check(job: Path, output: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a JOB file without running it. Exit status 0: it can run; 2: it cannot, and every reason is told."""
    loaded: LoadedJob | None = None
    try:
        loaded = load_job(job, output=output, overrides=overrides)
    except JobError as error:
        findings = Findings(error.problems, ())
    else:
        found = check_job(loaded)
        findings = Findings((*found.errors, *_foreign_ledger(loaded)), found.warnings)

    if as_json:
        sys.stdout.write(orjson.dumps(_as_json(loaded, findings), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print(loaded, findings)
    if findings.errors:
        sys.exit(2)


def _foreign_ledger(loaded: LoadedJob) -> Iterable[Problem]:
    """A problem when the output already holds episodes of another job."""
    path = ledger_path(loaded.job.output)
    if not path.exists():
        return
    try:
        known = fingerprints(path)
    except LedgerError as error:
        yield Problem(loaded.where("output"), str(error))
        return
    for job, fingerprint in known.items():
        if fingerprint != loaded.job.fingerprint():
            text = (
                f"output {loaded.job.output} holds episodes of job '{job}' with other settings; "
                f"give another --output, or remove the folder"
            )
            yield Problem(loaded.where("output"), text)


def _as_json(loaded: LoadedJob | None, findings: Findings) -> dict[str, Any]:
    def rows(problems: Iterable[Problem]) -> list[dict[str, str]]:
        return [{"where": problem.where, "text": problem.text} for problem in problems]

    summary: dict[str, Any] = {
        "ok": not findings.errors,
        "errors": rows(findings.errors),
        "warnings": rows(findings.warnings),
    }
    if loaded is not None:
        job = loaded.job
        summary |= {"job": job.to_dict(), "fingerprint": job.fingerprint(), "episodes": job.total_episodes}
    return summary


def _print(loaded: LoadedJob | None, findings: Findings) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if loaded is not None:
        console.print(_summary(loaded))
    for color, word, problems in (("red", "error", findings.errors), ("yellow", "warning", findings.warnings)):
        for problem in problems:
            console.print(f"[{color}]{word}[/] [bold]{escape(problem.where)}[/]: {escape(problem.text)}")
    if findings.errors:
        count = len(findings.errors)
        console.print(f"[red]{count} error{'s' * (count > 1)}:[/] this job cannot run as it stands.")
    elif loaded is not None:
        where = "where its warnings are mended" if findings.warnings else "here"
        console.print(f"[green]OK:[/] {escape(loaded.job.name)} can run {where}.")


def _summary(loaded: LoadedJob) -> Table:
    """The job in a few lines; of arguments only those that the file sets."""
    job = loaded.job
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    names = ", ".join(job.scenes[:_SHOWN_SCENES]) + (" …" if len(job.scenes) > _SHOWN_SCENES else "")
    exactly = "exactly" if job.exact else "up to"
    table.add_row("job", f"[bold]{escape(job.name)}[/] (seed {job.seed})")
    table.add_row("scenes", f"{len(job.scenes)}: {escape(names)}")
    table.add_row("episodes", f"{exactly} {job.total_episodes} ({job.episodes_per_scene} per scene)")
    for kind, spec in job.stages.items():
        written = loaded.source.value["pipeline"][kind].get("args") or {}
        args = ", ".join(f"{key}={value}" for key, value in written.items())
        table.add_row(kind, f"{escape(spec.component)} {spec.version} [dim]{escape(args)}[/]")
    table.add_row("output", escape(str(job.output)))
    return table
