"""`nimbusctl top`: nodes and jobs, live."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from nimbusd.cli import tables
from nimbusd.cli.connect import EXIT_HELP, ClusterCommand, connect, json_option, print_json
from nimbusd.cli.console import Console, make_console
from nimbusd.client import ENDED, Client, JobSummary, MasterUnreachable, NodeSummary

_KEY_WAIT_S = 0.1
_PATIENCE_S = 2.0
_ORDERS = ("name", "busy", "done")
_CHROME_LINES = 8
"""Lines that are not rows: the headline, two headings, blanks, the footer."""
_MOST_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class View:
    """The contents of the screen, and their order. away_s: since the master last answered, when it does not."""

    address: str
    nodes: tuple[NodeSummary, ...] = ()
    jobs: tuple[JobSummary, ...] = ()
    away_s: float | None = None
    order: str = _ORDERS[0]
    ended: bool = True

    def pressed(self, key: str) -> View | None:
        """The view after a key; None: quit."""
        match key:
            case "q" | "Q" | "\x03" | "\x04":
                return None
            case "s":
                return replace(self, order=_ORDERS[(_ORDERS.index(self.order) + 1) % len(_ORDERS)])
            case "e":
                return replace(self, ended=not self.ended)
            case _:
                return self


def draw(view: View, width: int, height: int) -> RenderableType:
    """The view on a screen of this size. Running jobs come first; what does not fit is counted."""
    nodes = sorted(view.nodes, key=_ORDER_KEYS[view.order])
    jobs = sorted(
        (job for job in view.jobs if view.ended or job.state not in ENDED),
        key=lambda job: (job.state in ENDED, -job.submitted_unix_s),
    )
    problems = tables.job_problems(jobs)[: min(_MOST_PROBLEMS, max(0, height - _CHROME_LINES - 2))]
    rows = max(2, height - _CHROME_LINES - len(problems))
    job_rows = min(len(jobs), max(rows // 2, rows - len(nodes)))
    node_rows = min(len(nodes), rows - job_rows)
    parts: list[RenderableType] = [_headline(view), Text()]
    parts += [tables.nodes_table(nodes[:node_rows], width, one_line=True), *_rest(len(nodes) - node_rows)]
    parts += [Text(), tables.jobs_table(jobs[:job_rows], width, one_line=True), *_rest(len(jobs) - job_rows)]
    for problem in problems:
        problem.no_wrap, problem.overflow = True, "ellipsis"
    parts += problems
    parts.append(
        Text(f"q quit   s sort nodes (by {view.order})   e ended jobs ({'shown' if view.ended else 'hidden'})")
    )
    return Group(*parts)


def _headline(view: View) -> Text:
    ready = [node for node in view.nodes if node.state == "ready"]
    running = [job for job in view.jobs if tables.condition(job) == "running"]
    waiting = sum(tables.condition(job) == "waiting" for job in view.jobs)
    speed = tables.rate(sum(job.rate_per_s for job in running))
    away = "" if view.away_s is None else f"  does not answer ({tables.duration(view.away_s)})"
    slots = sum(node.slots for node in ready)
    facts = f"  nodes {len(ready)}/{len(view.nodes)}, slots {slots:,}, running jobs {len(running)}, "
    facts += f"waiting {waiting}, {speed}" if waiting else speed
    return Text.assemble((view.address, "bold"), (away, "bold red"), facts, no_wrap=True, overflow="ellipsis")


def _rest(hidden: int) -> list[Text]:
    return [Text(f"… {hidden:,} more", "dim")] if hidden > 0 else []


_ORDER_KEYS = {
    "name": lambda node: (node.node,),
    "busy": lambda node: (-(node.load.cpu if node.load is not None else 0.0), node.node),
    "done": lambda node: (-node.done, node.node),
}


@click.command(cls=ClusterCommand, epilog=f"Example: nimbusctl top --interval 5. {EXIT_HELP}")
@click.option("--interval", "interval_s", type=click.FloatRange(0.1), default=1.0, show_default=True, metavar="SECONDS")
@json_option
def top(interval_s: float, as_json: bool) -> None:
    """Nodes and jobs, live: q quits, s sorts the nodes, e hides jobs that have ended.

    With --json, or when not in a terminal, print the present state once.
    """
    console = make_console()
    with connect() as client:
        nodes, jobs = client.nodes(), client.jobs()
        view = View(client.address, nodes, jobs)
        if as_json:
            print_json({"nodes": nodes, "jobs": jobs, "counters": client.counters()})
        elif not console.is_terminal or not sys.stdin.isatty():
            console.print(draw(view, console.width, 10_000))
        else:
            _run(client, view, console, interval_s)


def _run(client: Client, view: View, console: Console, interval_s: float) -> None:
    """Draw and ask until a key says no. The asking is done beside, so that keys work while the master is away."""
    seen_at = asked_at = time.monotonic()
    asking: Future[tuple[tuple[NodeSummary, ...], tuple[JobSummary, ...]]] | None = None
    with (
        ThreadPoolExecutor(1) as pool,
        contextlib.closing(client),  # before the pool waits for what is being asked
        _raw_keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            now = time.monotonic()
            if asking is None and now - asked_at >= interval_s:
                asking, asked_at = pool.submit(lambda: (client.nodes(), client.jobs())), now
            if asking is not None and asking.done():
                with contextlib.suppress(MasterUnreachable):
                    nodes, jobs = asking.result()
                    view, seen_at = replace(view, nodes=nodes, jobs=jobs), now
                asking = None
            away_s = now - seen_at
            view = replace(view, away_s=away_s if away_s > interval_s + _PATIENCE_S else None)
            live.update(draw(view, console.width, console.height), refresh=True)
            for key in keys.pressed(_KEY_WAIT_S):
                after = view.pressed(key)
                if after is None:
                    return
                view = after


@dataclass(slots=True)
class _Keys:
    descriptor: int = field(default_factory=lambda: sys.stdin.fileno())

    def pressed(self, wait_s: float) -> str:
        """Keys pressed meanwhile; the end of the input is Ctrl-D."""
        if not select.select([self.descriptor], [], [], wait_s)[0]:
            return ""
        return os.read(self.descriptor, 64).decode("utf-8", "replace") or "\x04"


@contextlib.contextmanager
def _raw_keys() -> Iterator[_Keys]:
    """Keys one by one and unechoed, until the terminal is put back as it was. Ctrl-C is a key, too."""
    keys = _Keys()
    before = termios.tcgetattr(keys.descriptor)
    tty.setraw(keys.descriptor, termios.TCSADRAIN)
    output = termios.tcgetattr(keys.descriptor)
    output[1] = before[1]  # output as before: a new line still returns the carriage
    termios.tcsetattr(keys.descriptor, termios.TCSADRAIN, output)
    try:
        yield keys
    finally:
        termios.tcsetattr(keys.descriptor, termios.TCSADRAIN, before)
