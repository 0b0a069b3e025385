"""The progress of a run: a live display in a terminal, plain lines elsewhere, JSON for programs."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TextIO, cast

import click
import orjson
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nimbusd import events
from nimbusd.cli.console import Console, make_console
from nimbusd.core.environments import changes_in_words
from nimbusd.core.ids import slot_of
from nimbusd.core.words import counted
from nimbusd.program.streams import Lasting
from nimbusd.stages.stage_names import STAGES

_RECENT = 32


@dataclass
class RunTally:
    """The sum of the events so far. stage_s, stage_frames: seconds and frames by stage in this run."""

    wanted: int = 0
    committed: int = 0
    quarantined: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    stage_s: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    working: dict[str, events.StageBegan] = field(default_factory=dict)
    waiting: str = ""
    """The reason why nothing moves; empty if something does."""
    began: float = field(default_factory=time.monotonic)
    first_commits: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, event: events.Event) -> None:
        """Take in an event."""
        match event:
            case events.JobStarted():
                self.wanted, self.committed, self.quarantined = event.wanted, event.committed, event.quarantined
                if event.failed:
                    self.failed["earlier runs"] = event.failed
            case events.StageBegan() if event.stage != "store":
                self.working[event.worker] = event
            case events.WorkerDown():
                self.working.pop(event.worker, None)
            case events.EpisodeCommitted():
                self.committed += 1
                self.frames += event.frames
                self.stage_s.update(event.timings_s)  # Counter.update adds
                self.first_commits.append(time.monotonic())
            case events.EpisodeFailed():
                self.failed[event.failure.reason] += 1
            case events.AttemptLost():
                self.quarantined += event.quarantined
                self.retried[event.failure.reason] += not event.quarantined
            case events.JobWaiting() | events.JobPaused():
                self.waiting = event.why
            case events.JobResumed():
                self.waiting = ""
            case _:
                pass

    def seconds_left(self) -> float | None:
        """From the pace of the last commits and the time since; None before the second one, and while nothing moves."""
        if len(self.first_commits) < 2 or self.waiting:
            return None
        span = time.monotonic() - self.first_commits[0]
        return (self.wanted - self.committed) * span / (len(self.first_commits) - 1)


class Progress:
    """Plain lines, one per thing worth knowing: for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.tally = RunTally()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._out.flush()

    def see(self, event: events.Event) -> None:
        """Take in an event and print its line, if it has one."""
        self.tally.add(event)
        if line := _line(event, self.tally):
            print(line, file=self._out, flush=True)

    def summarize(self, ended: events.JobEnded) -> None:
        """Print how the run ended."""
        print("\n".join(_summary(ended, self.tally)), file=self._out, flush=True)


class JsonProgress(Progress):
    """One JSON object per line and event, the last one `job_ended`."""

    def see(self, event: events.Event) -> None:
        self._out.write(orjson.dumps(events.to_json(event)).decode() + "\n")
        self._out.flush()

    def summarize(self, ended: events.JobEnded) -> None:
        """The `job_ended` event has said it all."""


class LiveProgress(Progress):
    """A display that is redrawn in place, with the lines that matter scrolling above it."""

    def __init__(self, out: TextIO, console: Console) -> None:
        super().__init__(out)
        self._console = console
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def see(self, event: events.Event) -> None:
        self.tally.add(event)
        told = (events.EpisodeCommitted, events.StageBegan)  # these show in the display itself
        if not isinstance(event, told) and (line := _line(event, self.tally)):
            self._console.print(f"[dim]{escape(line)}[/]")

    def summarize(self, ended: events.JobEnded) -> None:
        color = {"complete": "green", "interrupted": "yellow"}.get(ended.status, "red")
        first, *rest = _summary(ended, self.tally)
        self._console.print(f"[bold {color}]{escape(first)}[/]")
        for line in rest:
            self._console.print(escape(line), soft_wrap=True)

    def _draw(self) -> RenderableType:
        tally = self.tally
        bar = Table.grid(padding=(0, 1))
        left = tally.seconds_left()
        bar.add_row(
            Text("episodes", style="bold"),
            ProgressBar(total=max(tally.wanted, 1), completed=tally.committed, width=36),
            f"{tally.committed}/{tally.wanted}",
            "" if left is None else f"{_duration(left)} left",
        )
        rows: list[RenderableType] = [bar]
        if tally.frames:
            speeds = (f"{stage} {_rate(tally, stage)}" for stage in STAGES if tally.stage_s[stage])
            rows.append(Text("frames/s per worker  " + "  ".join(speeds), style="cyan"))
        if tally.waiting:
            rows.append(Text(f"waiting: {tally.waiting}", style="yellow"))
        if outcome := _outcome(tally):
            rows.append(Text(outcome, style="yellow"))
        for worker, at in sorted(tally.working.items()):
            rows.append(Text(f"  {slot_of(worker)}  {at.stage:<9} {at.scene}/{at.index}", style="dim"))
        return Group(*rows)


def make_progress(as_json: bool) -> Progress:
    """The progress that suits standard output. The run goes on when that takes nothing more."""
    out = cast(TextIO, Lasting(sys.stdout, _tell_lost))
    if as_json:
        return JsonProgress(out)
    console = make_console(file=out)
    return LiveProgress(out, console) if console.is_terminal else Progress(out)


def _tell_lost(why: str) -> None:
    click.echo(f"warning: the progress is not shown any more, the run goes on: {why}", err=True)


def _line(event: events.Event, tally: RunTally) -> str:
    """An event as a line for people; empty for events that only displays and programs follow."""
    match event:
        case events.JobStarted():
            done = f", {event.committed} already committed" if event.committed else ""
            return (
                f"{event.job}: {counted(event.wanted, 'episode')}{done}, {counted(event.slots, 'worker')}, "
                f"output {event.output}"
            )
        case events.WorkerUp():
            return f"worker {event.worker} is ready, rendering on {event.device}"
        case events.WorkerDown():
            last = event.failure.evidence.strip().splitlines()[-1:] or [""]
            return f"worker {event.worker} is gone: {event.failure.detail.rstrip('.')}. {last[0]}".rstrip()
        case events.EpisodeCommitted():
            parts = [counted(event.frames, "frame")]
            parts += [f"{stage} {s:.1f} s" for stage, s in event.timings_s.items() if s >= 0.05]
            return f"[{tally.committed}/{tally.wanted}] {event.scene}/{event.index}: {', '.join(parts)}"
        case events.EpisodeFailed():
            return f"{event.scene}/{event.index}: no plan ({event.failure.reason}: {event.failure.detail})"
        case events.AttemptLost():
            fate = "set aside" if event.quarantined else "will be made again"
            return f"{event.scene}/{event.index}: {event.failure.reason}, {event.failure.detail}; {fate}"
        case events.Published() if event.final:
            return f"published {counted(event.episodes, 'episode')}: {event.dataset}"
        case events.PublishFailed():
            return "\n".join(filter(None, [f"not published: {event.why}", event.evidence.rstrip()]))
        case events.Draining():
            return f"stopping: {event.why}"
        case events.JobWaiting():
            return f"waiting: {event.why}"
        case events.JobResumed():
            return "goes on"
        case events.EnvironmentChanged():
            return f"goes on with other packages: {changes_in_words(event.before, event.now)}"
        case _:
            return ""


def _summary(ended: events.JobEnded, tally: RunTally) -> list[str]:
    lines = [
        f"{ended.job} {ended.status}: {ended.committed} of {counted(ended.wanted, 'episode')} in "
        f"{_duration(ended.elapsed_s)}"
    ]
    if ended.why and ended.why != tally.waiting:  # that was said already
        lines.append(ended.why)
    if ended.failures:
        lines.append("not made: " + ", ".join(f"{reason} {number}" for reason, number in ended.failures.items()))
    if ended.quarantined:
        lines.append("set aside episodes can be tried again with --retry-quarantined")
    if tally.frames and (spent := sum(tally.stage_s.values())):
        shares = (f"{stage} {100 * tally.stage_s[stage] / spent:.0f}%" for stage in STAGES if tally.stage_s[stage])
        lines.append(
            f"{counted(tally.frames, 'frame')}, {tally.frames / max(ended.elapsed_s, 1e-9):.2f} per second; "
            + ", ".join(shares)
        )
    if ended.dataset:
        lines.append(f"dataset: {ended.dataset}")
    if ended.status == "interrupted":
        lines.append("run the same command again to go on")
    return lines


def _outcome(tally: RunTally) -> str:
    parts = [f"no plan: {reason} {number}" for reason, number in sorted(tally.failed.items())]
    parts += [f"retried: {reason} {number}" for reason, number in sorted(tally.retried.items()) if number]
    if tally.quarantined:
        parts.append(f"set aside: {tally.quarantined}")
    return "  ".join(parts)


def _rate(tally: RunTally, stage: str) -> str:
    rate = tally.frames / max(tally.stage_s[stage], 1e-9)
    return f"{rate:.1f}" if rate < 1000 else f"{rate / 1000:.0f}k"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
