"""`nimbusctl check JOB`: everything that can be wrong with a job, before anything runs.

With `--component`, one component instead of a job: see `nimbusd.cli.contract`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import orjson
from rich.markup import escape
from rich.table import Table

from nimbusd.cli.console import make_console
from nimbusd.core.words import counted
from nimbusd.job import CheckedJob, Findings, JobError, Problem, read_apart
from nimbusd.master.ledger.ledger import LedgerError, fingerprints
from nimbusd.master.output.folder import ledger_path, owner_of
from nimbusd.master.output.owner import Whose, refusal

_SHOWN_SCENES = 4


@click.command()
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option("--output", type=click.Path(path_type=Path), help="Use this output folder instead of the job's.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, e.g. scenes.0.path=a.glb."
)
@click.option(
    "--deep",
    is_flag=True,
    help="Load every scene too: names what in its file cannot be used, and a likely wrong axis or unit.",
)
@click.option("--component", metavar="NAME", help="Try a component or workflow: a registered name, or module:Class.")
@click.option("--args", metavar="YAML", help="With --component: its arguments, as YAML or @FILE.")
@click.option("--scene", metavar="YAML", help="With --component: an entry of `scenes`, for loaders and workflows.")
@click.option("--beside", metavar="YAML", help="With --component: stages to take in place of the tester's fixtures.")
@click.option("--device", default="auto", show_default=True, help="With --component: for renderers.")
@click.option("--runs", type=click.IntRange(4, 10_000), help="With --component: calls in one process.  [default: 20]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def check(
    job: Path | None,
    output: Path | None,
    overrides: tuple[str, ...],
    deep: bool,
    component: str | None,
    args: str | None,
    scene: str | None,
    beside: str | None,
    device: str,
    runs: int | None,
    as_json: bool,
) -> None:
    """Check a JOB file without running it, or try the contract of one component.

    Exit status 0: it can run, every line of the contract holds; 2: it cannot, a line fails, and every reason is told;
    3: of a component, nothing fails, but not everything could be tried here.
    """
    if (job is None) == (component is None):
        raise click.UsageError("Give either a JOB file, or --component.")
    if component is not None:
        from nimbusd.cli.contract import run_contract

        run_contract(component, args=args, scene=scene, beside=beside, device=device, runs=runs, as_json=as_json)
        return
    assert job is not None
    _check_job(job, output, overrides, deep, as_json)


def _check_job(job: Path, output: Path | None, overrides: tuple[str, ...], deep: bool, as_json: bool) -> None:
    checked: CheckedJob | None = None
    try:
        checked = read_apart(job, output=output, overrides=overrides, deep=deep)
    except JobError as error:
        findings = Findings(error.problems, ())
    else:
        found = checked.findings
        findings = Findings((*found.errors, *_foreign_output(checked)), found.warnings)

    if as_json:
        sys.stdout.write(orjson.dumps(_as_json(checked, findings), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print(checked, findings)
    if findings.errors:
        sys.exit(2)


def _foreign_output(checked: CheckedJob) -> Iterable[Problem]:
    """A problem where the output is another job's already, be it a master's."""
    job, path = checked.job, ledger_path(checked.job.output)
    if not path.parent.is_dir():
        return
    try:
        mark = owner_of(job.output)
        known = fingerprints(path) if path.exists() else {}
    except LedgerError as error:
        yield Problem(checked.output_at, str(error))
        return
    fingerprint = job.fingerprint()
    if mark is not None and (mark.job, mark.fingerprint) != (job.name, fingerprint):
        whose = Whose.OTHER_SETTINGS if mark.job == job.name else Whose.OTHER_JOB
        yield Problem(checked.output_at, str(refusal(job.output, mark, whose, job.name)))
    elif other := next((name for name, stated in known.items() if stated != fingerprint), None):
        text = f"{path} belongs to job {other!r} with other scenes, seed or pipeline; give another --output"
        yield Problem(checked.output_at, text)


def _as_json(checked: CheckedJob | None, findings: Findings) -> dict[str, Any]:
    def rows(problems: Iterable[Problem]) -> list[dict[str, str]]:
        return [{"where": problem.where, "text": problem.text} for problem in problems]

    summary: dict[str, Any] = {
        "ok": not findings.errors,
        "errors": rows(findings.errors),
        "warnings": rows(findings.warnings),
    }
    if checked is not None:
        job = checked.job
        summary |= {"job": job.to_dict(), "fingerprint": job.fingerprint(), "episodes": job.total_episodes}
    return summary


def _print(checked: CheckedJob | None, findings: Findings) -> None:
    console = make_console(soft_wrap=True)
    if checked is not None:
        console.print(_summary(checked))
    for color, word, problems in (("red", "error", findings.errors), ("yellow", "warning", findings.warnings)):
        for problem in problems:
            console.print(f"[{color}]{word}[/] [bold]{escape(problem.where)}[/]: {escape(problem.text)}")
    if findings.errors:
        console.print(f"[red]{counted(len(findings.errors), 'error')}:[/] this job cannot run as it stands.")
    elif checked is not None:
        where = "here" if not findings.warnings else "where its warnings are mended, or do no harm"
        console.print(f"[green]OK:[/] {escape(checked.job.name)} can run {where}.")


def _summary(checked: CheckedJob) -> Table:
    """The job in a few lines, with the arguments that the file sets."""
    job = checked.job
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    names = ", ".join(job.scenes[:_SHOWN_SCENES]) + (" …" if len(job.scenes) > _SHOWN_SCENES else "")
    exactly = "exactly" if job.exact else "up to"
    table.add_row("job", f"[bold]{escape(job.name)}[/] (seed {job.seed})")
    table.add_row("scenes", f"{len(job.scenes)}: {escape(names)}")
    table.add_row("episodes", f"{exactly} {job.total_episodes} ({job.episodes_per_scene} per scene)")
    for kind, spec in job.stages.items():
        written = checked.written[kind]
        args = ", ".join(f"{key}={value}" for key, value in written.items())
        table.add_row(kind, f"{escape(spec.component)} {spec.version} [dim]{escape(args)}[/]")
    table.add_row("output", escape(str(job.output)))
    return table
