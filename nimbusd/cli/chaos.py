"""`nimbusctl chaos JOB`: the job on a cluster of its own on this machine, while everything goes wrong."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
import orjson
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nimbusd.chaos import ChaosProgress, ChaosRun, ChaosSettings, ChaosVerdict, FaultsUnknown, Kind, parse_kinds
from nimbusd.cli import tables
from nimbusd.cli.console import Console, make_console
from nimbusd.job import Job, JobError, read_apart
from nimbusd.stages.errors import NimbusError

NOT_OK, USAGE, INTERRUPTED = 1, 2, 130
_BEAT_TIMEOUT = "limits.beat_timeout_s"


def _kinds(_: click.Context, option: click.Parameter, text: str) -> tuple[Kind, ...]:
    try:
        return parse_kinds(text)
    except FaultsUnknown as error:
        raise click.BadParameter(str(error), param=option) from error


@click.command(
    epilog="Example: nimbusctl chaos my_job.yaml --faults hang,daemon --count 50 --compare. Exit status: 0 nothing was "
    "lost, made twice, torn or unreadable; 1 something was; 2 a bad job file; 130 interrupted."
)
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--faults",
    "kinds",
    default="all",
    show_default=True,
    callback=_kinds,
    metavar="KINDS",
    help="Of " + ",".join(kind.value for kind in Kind) + ".",
)
@click.option("--count", type=click.IntRange(1), default=30, show_default=True, help="Number of faults.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the plan of faults.")
@click.option("--nodes", type=click.IntRange(1, 64), default=3, show_default=True, help="Nodes of the cluster.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Compute workers per node.")
@click.option("--spares", type=click.IntRange(0, 64), default=1, show_default=True, help="Warm spares per node.")
@click.option("--pause", type=click.FloatRange(0), default=2.0, show_default=True, help="Longest time between two.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as in `nimbusctl run`.")
@click.option("--compare", is_flag=True, help="Run the job undisturbed first, and compare what is published.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for outputs, ledger and logs [default: a temporary one].",
)
@click.option("--keep", is_flag=True, help="Leave all of it, not only what is not as it must be.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def chaos(
    job: Path,
    kinds: tuple[Kind, ...],
    count: int,
    seed: int,
    nodes: int,
    workers: int,
    spares: int,
    pause: float,
    overrides: tuple[str, ...],
    compare: bool,
    output: Path | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Run JOB again and again on a cluster of its own on this machine, while faults are injected from a seed.

    A master and nodes are real processes with private sockets and state. Faults hit components in the middle of a
    stage, daemons, the master, the network between them, the ledger, the nodes' packages and the job's output. The
    job's limits are changed: attempts are all but unlimited, and a worker that does not beat for 3 s is killed (unless
    --set limits.beat_timeout_s says otherwise). After every fault the published dataset is read, and at the end of
    each job its episodes are counted.
    """
    checked = _checked_job(job, overrides)
    settings = ChaosSettings(kinds, count, seed, nodes, workers, spares, pause, compare=compare, keep=keep)
    if any(change.startswith(_BEAT_TIMEOUT) for change in overrides):
        settings = dataclasses.replace(settings, beat_timeout_s=None)
    folder = _folder(output)
    display = _display(as_json, count)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with display:
            verdict = ChaosRun(checked, settings, folder, display.see).run()
    except NimbusError:
        click.echo(f"what there is lies in {folder}", err=True)
        raise
    except KeyboardInterrupt:  # before there was a cluster, or while it was taken down
        sys.exit(INTERRUPTED)
    kept = keep or not verdict.ok
    if not kept:
        shutil.rmtree(folder)
    if as_json:
        document = {**verdict.to_json(), "kept": str(folder) if kept else None}
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print_verdict(make_console(), verdict, folder if kept else None)
    sys.exit(NOT_OK if not verdict.ok else INTERRUPTED if verdict.interrupted else 0)


def _checked_job(path: Path, overrides: tuple[str, ...]) -> Job:
    """The job, after everything that can be checked before running was."""
    try:
        checked = read_apart(path, overrides=overrides)
        if checked.findings.errors:
            raise JobError(checked.findings.errors)
    except JobError as error:
        click.echo("\n".join(f"error: {problem}" for problem in error.problems), err=True)
        sys.exit(USAGE)
    return checked.job


def _folder(output: Path | None) -> Path:
    if output is None:
        return Path(tempfile.mkdtemp(prefix="nimbusd-chaos-"))
    if output.exists() and any(output.iterdir()):
        raise click.UsageError(f"--output {output} is not empty; name a new folder")
    output.mkdir(parents=True, exist_ok=True)
    return output.absolute()


# --- how it looks ---


class Lines:
    """A line on standard error for each thing that happens."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._began = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def see(self, progress: ChaosProgress) -> None:
        """Take in where the run stands."""
        if progress.what:
            print(self._line(progress), file=sys.stderr, flush=True)

    def _line(self, progress: ChaosProgress) -> str:
        elapsed = tables.duration(time.monotonic() - self._began)
        return f"{elapsed:>6} {progress.injected:>5}/{self._count}  {progress.what}"


class LiveLines(Lines):
    """A display: what happens scrolls by above a table of faults and a bar of the job, redrawn in place."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._console = make_console(stderr=True)
        self._progress: ChaosProgress | None = None
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveLines:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def see(self, progress: ChaosProgress) -> None:
        """Take in where the run stands."""
        self._progress = progress
        if progress.what:
            self._console.print(Text(self._line(progress), "dim"), soft_wrap=True)

    def _draw(self) -> RenderableType:
        if (at := self._progress) is None:
            return Text("starting a master and its nodes …", "dim")
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("faults", "bold"), tables.bar(at.injected, self._count, 30), f"{at.injected}/{self._count}")
        grid.add_row(Text(at.job, "bold"), tables.bar(at.committed, at.wanted, 30), f"{at.committed}/{at.wanted}")
        wrong = at.figures.wrong()
        state = Text(f"{at.figures.jobs} jobs done, ", "dim")
        state.append(str(wrong) if wrong else "nothing lost, nothing made twice", "red" if wrong else "green")
        hits = ", ".join(f"{kind.value} {number}" for kind, number in at.recoveries.hits.items())
        waiting = f"{at.recoveries.unfinished} not over yet" if at.recoveries.unfinished else ""
        return Group(grid, state, Text(hits, "dim"), Text(waiting, "yellow"))


def _display(as_json: bool, count: int) -> Lines:
    return LiveLines(count) if not as_json and make_console(stderr=True).is_terminal else Lines(count)


def _print_verdict(console: Console, verdict: ChaosVerdict, kept: Path | None) -> None:
    console.print(_table(verdict))
    figures = verdict.figures
    compared = ""
    if verdict.compared:
        compared = f", {figures.other_state_columns} with other state columns than an undisturbed run"
    lines = [
        f"{figures.jobs} jobs, {figures.not_complete} not complete{compared}",
        f"episodes: {figures.wanted:,} wanted, {figures.committed:,} committed, {figures.lost:,} lost",
        f"duplicated: {figures.duplicated_in_ledger} in the ledger, {figures.duplicated_in_events} in what the master "
        f"told, {figures.duplicated_on_disk} on disk",
        f"pieces: {figures.torn} torn, {figures.leftover_pieces} left over",
        f"looks after faults: {verdict.looks:,}, of which {verdict.datasets:,} read a published dataset; "
        f"{len(verdict.unreadable)} found something wrong",
        f"daemons that ended by themselves: {verdict.ended_themselves}, compute workers that outlived theirs: "
        f"{verdict.orphans}",
    ]
    for line in (*lines, *verdict.figures.faults, *verdict.unreadable, *verdict.wrong, *verdict.not_over):
        console.print(line, markup=False, soft_wrap=True)
    if kept is not None:
        console.print(f"kept in {kept}", markup=False, soft_wrap=True)
    text = "nothing was lost, nothing was made twice" if verdict.ok else "NOT as it must be: see above"
    if verdict.interrupted:
        text += " (interrupted: the last job is not counted)"
    head = f"{verdict.injected:,} faults, {verdict.recovered:,} seen to be over, {tables.duration(verdict.elapsed_s)}"
    console.print(f"[bold {'green' if verdict.ok else 'red'}]{head}: {text}[/]", soft_wrap=True)


def _table(verdict: ChaosVerdict) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("FAULT")
    for title in ("INJECTED", "OVER", "MIN s", "MEDIAN s", "MAX s"):
        table.add_column(title, justify="right")
    for row in verdict.rows:
        took = row.took_s
        times = [f"{took[name]:.2f}" for name in ("min_s", "median_s", "max_s")] if took else ["–"] * 3
        table.add_row(row.kind.value, str(row.injected), str(row.recovered), *times)
    return table
