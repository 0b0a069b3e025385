"""Jobs, nodes and failures for people: pure functions from the master's answers to rich renderables.

Everything reads as well without colour, and fits 80 columns; wider terminals show more columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nimbusd.client import FailureReport, JobReport, JobSummary, NodeSummary
from nimbusd.core.words import counted, listed

STATE_STYLES = {
    "running": "cyan",
    "paused": "yellow",
    "waiting": "yellow",
    "complete": "green",
    "incomplete": "red",
    "cancelled": "dim",
    "ready": "green",
    "draining": "yellow",
    "lost": "red",
    "refused": "red",
    "failed": "yellow",
    "quarantined": "red",
}
_SHOWN_SCENES = 12
WIDE = 100
"""Terminals at least so wide have a column for what a node does, and why it does not."""


# --- values ---


def duration(seconds: float | None) -> str:
    """`45s`, `1m35s`, `2h05m`, `3d04h`; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    for unit, of, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{of}{whole % unit // small:02d}{part}"
    return f"{whole}s"


def seconds(taken_s: float) -> str:
    """`45 ms`, `4.5 s`, `1m35s`; a dash for what was not measured."""
    if taken_s <= 0:
        return "–"
    if taken_s < 0.1:
        return f"{1000 * taken_s:.0f} ms"
    return f"{taken_s:.1f} s" if taken_s < 10 else duration(taken_s)


def size(count_bytes: float) -> str:
    """`812 B`, `1.4 MB`, `23 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit == "B" or count_bytes >= 10 else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} TB" if count_bytes < 10 else f"{count_bytes:,.0f} TB"


def rate(per_s: float) -> str:
    """`12/s`, `1.4/s`, `3.1/min`, `2.0/h`, in the unit in which it is at least 1; a dash for 0."""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if per_s * factor >= 1:
            value = per_s * factor
            return f"{value:,.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"
    return "–" if per_s <= 0 else "<1/h"


def count(number: int) -> str:
    """Thousands apart; nothing for 0, so that what is there stands out."""
    return f"{number:,}" if number else ""


def percent(share: float | None) -> str:
    """`87%`; a dash for None."""
    return "–" if share is None else f"{100 * share:.0f}%"


def bar(done: int, of: int, width: int, style: str = "cyan") -> Text:
    """A bar that stands out from its rest without colour, too."""
    filled = width if done >= of else int(width * done / of)
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), "dim"))


def state(word: str) -> Text:
    return Text(word, STATE_STYLES.get(word, ""))


# --- jobs ---


def condition(job: JobSummary) -> str:
    """A job's state in a word: `waiting` for one that is running and of which nothing moves."""
    return "waiting" if job.state == "running" and job.waiting else job.state


def job_problems(jobs: Iterable[JobSummary]) -> list[Text]:
    """The reasons why jobs wait or are paused, a line each."""
    told = ((job, condition(job)) for job in jobs)
    return [Text.assemble((job.job, "bold"), (f" {word}: {job.why}", "yellow")) for job, word in told if job.waiting]


def job_line(job: JobSummary) -> Text:
    """The state of a job in a line, for logs."""
    facts = [f"{job.committed:,} of {counted(job.wanted, 'episode')}", f"{job.leased:,} under way"]
    if job.rate_per_s > 0:
        facts.append(rate(job.rate_per_s))
    if job.eta_s is not None:
        facts.append(f"{duration(job.eta_s)} left")
    why = f": {job.why}" if job.waiting else ""
    return Text(f"{job.job} is {condition(job)}: {', '.join(facts)}{why}")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table. from_width: on terminals at least so wide. least: cells it has at any rate."""

    title: str
    from_width: int = 0
    least: int | None = None
    right: bool = False
    fold: bool = False


def jobs_table(jobs: Iterable[JobSummary], width: int, *, one_line: bool = False) -> Table:
    """One row per job. one_line: rows stay so, even where names need more room."""
    table = _Wide(
        width,
        _Column("JOB", least=20, fold=True),
        _Column("USER", 110),
        _Column("STATE"),
        _Column("EPISODES"),
        _Column("", right=True),
        _Column("NO PLAN", 100, right=True),
        _Column("ASIDE", 80, right=True),
        _Column("NODES", 90, right=True),
        _Column("FRAMES", 140, right=True),
        _Column("SIZE", 130, right=True),
        _Column("SPEED", 100, right=True),
        _Column("LEFT", right=True),
    )
    for job in jobs:
        table.add(
            Text(job.job, "bold", no_wrap=one_line, overflow="ellipsis" if one_line else "fold"),
            job.user,
            state(condition(job)),
            bar(job.committed, job.wanted, 10 if width < 140 else 20, STATE_STYLES.get(condition(job), "")),
            f"{job.committed:,}/{job.wanted:,}",
            count(job.failed),
            Text(count(job.quarantined), "red"),
            count(job.nodes),
            count(job.frames),
            size(job.size_bytes),
            rate(job.rate_per_s),
            duration(job.eta_s) if condition(job) == "running" else "",
        )
    return table.table


def job_report(report: JobReport, width: int) -> RenderableType:
    """All about one job: its facts, failures by reason, nodes that get none of it, and its scenes."""
    job = report.summary
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    why = f": {job.why}" if job.why else ""
    facts.add_row("job", Text.assemble((job.job, "bold"), "  ", state(condition(job)), why))
    episodes = bar(job.committed, job.wanted, 24, STATE_STYLES.get(condition(job), ""))
    facts.add_row("episodes", Text.assemble(episodes, f"  {job.committed:,} of {job.wanted:,}, {_how_many(job)}"))
    facts.add_row("data", f"{counted(job.frames, 'frame')}, {size(job.size_bytes)}")
    if job.elapsed_s:
        left = f", {duration(job.eta_s)} left" if job.eta_s is not None else ""
        speed = f", {rate(job.rate_per_s)}" if job.rate_per_s > 0 else ""
        facts.add_row("time", f"{duration(job.elapsed_s)} so far{left}{speed}")
    facts.add_row("who", Text(f"{job.user}, priority {job.priority}, on {counted(job.nodes, 'node')}"))
    facts.add_row("output", Text(job.output))
    _add_counts(facts, "not made", report.not_made, "episode")
    _add_counts(facts, "lost", _lost_attempts(report), "attempt")
    idle: dict[str, list[str]] = {}
    for node, why in sorted(report.waiting.items()):
        idle.setdefault(why, []).append(node)
    for number, (why, names) in enumerate(idle.items()):
        facts.add_row("" if number else "idle for it", Text.assemble((listed(names), "yellow"), f": {why}"))
    parts: list[RenderableType] = [facts]
    if report.pipelines:
        parts += [Text(), _pipelines_table(report, width)]
    if report.scenes:
        parts += [Text(), _scenes_table(report, width)]
        if (hidden := report.scene_count - min(len(report.scenes), _SHOWN_SCENES)) > 0:
            parts.append(Text(f"… and {counted(hidden, 'more scene')}", "dim"))
    return Group(*parts)


def _lost_attempts(report: JobReport) -> dict[str, int]:
    """Attempts by reason beyond the last one of each episode that was not made."""
    lost = {reason: attempts - report.not_made.get(reason, 0) for reason, attempts in report.reasons.items()}
    return {reason: attempts for reason, attempts in lost.items() if attempts > 0}


def _add_counts(facts: Table, title: str, counts: Mapping[str, int], thing: str) -> None:
    for number, (reason, times) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0]))):
        facts.add_row("" if number else title, Text(f"{counted(times, thing)}: {reason}"))


def _how_many(job: JobSummary) -> str:
    parts = [f"{job.leased:,} under way"]
    if job.failed:
        parts.append(f"{job.failed:,} without a plan")
    if job.quarantined:
        parts.append(f"{job.quarantined:,} set aside")
    return ", ".join(parts)


def _pipelines_table(report: JobReport, width: int) -> Table:
    """A job's pipeline on each node: compute workers by role, seconds by stage, the best rate and the real one."""
    table = _Wide(
        width,
        _Column("NODE", least=8, fold=True),
        _Column("MODE"),
        _Column("PLAN", right=True),
        _Column("RENDER", right=True),
        _Column("BACKLOG", right=True),
        _Column("STORE", WIDE, right=True),
        _Column("PLANS MADE", WIDE, right=True),
        _Column("μ PLAN", WIDE, right=True),
        _Column("μ RENDER", WIDE, right=True),
        _Column("λ", right=True),
        _Column("ACHIEVED", right=True),
    )
    for node, pipeline in sorted(report.pipelines.items()):
        fused = pipeline.mode == "fused"
        table.add(
            Text(node, "bold"),
            pipeline.mode,
            _stage(pipeline.planners, pipeline.planning, pipeline.plan_s, shown=not fused),
            _stage(pipeline.renderers, pipeline.rendering, pipeline.render_s, shown=True),
            "" if fused else count(pipeline.backlog),
            seconds(pipeline.store_s),
            percent(pipeline.good),
            rate(pipeline.mu_plan),
            rate(pipeline.mu_render),
            rate(pipeline.theory),
            rate(pipeline.achieved),
        )
    return table.table


def _stage(workers: int, busy: float, taken_s: float, *, shown: bool) -> str:
    """`2.0/3 × 4.5 s`: of three workers two are busy on average, and an episode takes 4.5 s."""
    return f"{busy:.1f}/{workers} × {seconds(taken_s)}" if shown else seconds(taken_s)


def _scenes_table(report: JobReport, width: int) -> Table:
    table = _Wide(
        width,
        _Column("SCENE", fold=True),
        _Column("EPISODES"),
        _Column("", right=True),
        _Column("UNDER WAY", right=True),
        _Column("NO PLAN", right=True),
        _Column("ASIDE", right=True),
        _Column("EACH TAKES", right=True),
    )
    for scene in report.scenes[:_SHOWN_SCENES]:
        table.add(
            scene.scene,
            bar(scene.committed, scene.wanted, 10),
            f"{scene.committed:,}/{scene.wanted:,}",
            count(scene.leased),
            count(scene.failed),
            Text(count(scene.quarantined), "red"),
            "–" if scene.cost_s is None else seconds(scene.cost_s),
        )
    return table.table


# --- nodes ---


def nodes_table(nodes: Iterable[NodeSummary], width: int, *, one_line: bool = False) -> Table:
    """One row per node. one_line: rows stay so, even where what is wrong with a node needs more room."""
    table = _Wide(
        width,
        _Column("NODE", least=8, fold=True),
        _Column("STATE"),
        _Column("SLOTS", right=True),
        _Column("HOLDS", right=True),
        _Column("DONE", right=True),
        _Column("CPU", right=True),
        _Column("MEMORY", right=True),
        _Column("GPU", right=True),
        _Column("HEARD", 80, right=True),
        _Column("VERSION", 120),
        _Column("DOING", WIDE, fold=True),
    )
    for node in nodes:
        load = node.load
        gpus = load.gpus if load is not None else ()
        busy = f"{len(gpus)}× {percent(sum(gpu.busy for gpu in gpus) / len(gpus))}" if gpus else "–"
        here = node.state in ("ready", "draining")
        table.add(
            Text(node.node, "bold", no_wrap=one_line, overflow="ellipsis" if one_line else "fold"),
            state(node.state),
            str(node.slots),
            count(node.episodes),
            count(node.done),
            percent(load.cpu if load is not None and here else None),
            percent(load.memory_used_bytes / load.memory_total_bytes if load and load.memory_total_bytes else None),
            busy if here else "–",
            "now" if node.silent_s < 2 else f"{duration(node.silent_s)} ago",
            node.version,
            _doing(node, one_line),
        )
    return table.table


def _doing(node: NodeSummary, one_line: bool) -> Text:
    """The work of a node, or what keeps it from work."""
    if node.why:
        return Text(node.why, "red", no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
    if node.running or not node.waiting:
        return Text(", ".join(node.running), "dim", no_wrap=True, overflow="ellipsis")
    gets_none = "; ".join(f"nothing of {job}: {why}" for job, why in node.waiting.items())
    return Text(gets_none, "yellow", no_wrap=one_line, overflow="ellipsis" if one_line else "fold")


def node_problems(nodes: Sequence[NodeSummary], width: int) -> list[Text]:
    """Reasons that keep nodes from work, a line each, unless the table of this width has them."""
    wide = width >= WIDE
    lines = [Text(f"{node.node}: {node.why}", "red") for node in nodes if node.why and not wide]
    untold = ((node, job, why) for node in nodes if not wide or node.running for job, why in node.waiting.items())
    return lines + [Text(f"{node.node} gets nothing of {job}: {why}", "yellow") for node, job, why in untold]


# --- failures ---


def failure(report: FailureReport) -> RenderableType:
    """An episode that was not made, and the evidence."""
    failed = report.failure
    place = f"  {failed.stage}: {failed.reason}" + (f", {failed.detail}" if failed.detail else "")
    head = Text.assemble((f"{report.scene}/{report.index}", "bold"), "  ", state(report.state), place)
    parts: list[RenderableType] = [head]
    where = f"attempt {report.attempt}" + (f" on {report.node}" if report.node else "")
    parts.append(Padding(Text(where, "dim"), (0, 0, 0, 2), expand=False))
    if evidence := failed.evidence.rstrip():
        parts.append(Padding(Text(evidence, overflow="fold"), (0, 0, 0, 4), expand=False))
    return Group(*parts)


class _Wide:
    """A table that has only the columns which the width allows."""

    def __init__(self, width: int, *columns: _Column) -> None:
        self._shown = [column.from_width <= width for column in columns]
        self.table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column, shown in zip(columns, self._shown, strict=True):
            if shown:
                self.table.add_column(
                    column.title,
                    justify="right" if column.right else "left",
                    overflow="fold" if column.fold else "ellipsis",
                    no_wrap=not column.fold,
                    min_width=column.least,
                )

    def add(self, *cells: Text | str) -> None:
        # As Text, so that a name with brackets is not taken for markup.
        row = (cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        self.table.add_row(*(cell for cell, shown in zip(row, self._shown, strict=True) if shown))
