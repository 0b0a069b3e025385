"""`nimbusctl simulate`: the time that a job takes on a number of nodes, by the real scheduler in virtual time."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.table import Table

from nimbusd.cli.console import make_console
from nimbusd.program.terminal import write_raw
from nimbusd.simulate.capacity import Answer, CapacityQuestion, answer

MANY_EPISODES = 500_000


def _numbers(_: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"'{text}' is no list of numbers of nodes; write 1,2,4,8, say", param=option)
    return numbers


@click.command()
@click.argument("job", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--scenes", type=click.IntRange(1), help="Scenes; without it those of JOB.")
@click.option("--episodes", type=click.IntRange(1), help="Episodes per scene; without it those of JOB.")
@click.option("--cost", type=click.FloatRange(0, min_open=True), required=True, help="Seconds per episode, on average.")
@click.option("--spread", type=click.FloatRange(0), default=0.3, show_default=True, help="Of cost, within a scene.")
@click.option("--scene-spread", type=click.FloatRange(0), default=0.5, show_default=True, help="Of cost, by scene.")
@click.option("--load", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds to load a scene.")
@click.option("--nodes", default="1,2,4,8", show_default=True, callback=_numbers, help="Numbers of nodes to compare.")
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True, help="Compute workers per node.")
@click.option("--speed-spread", type=click.FloatRange(0), default=0.1, show_default=True, help="Of nodes' speeds.")
@click.option("--mtbf", type=click.FloatRange(0), default=0.0, show_default=True, help="Hours between node failures.")
@click.option("--repair", type=click.FloatRange(0), default=300.0, show_default=True, help="Seconds until it is back.")
@click.option("--crashes", type=click.FloatRange(0, 0.5), default=0.0, show_default=True, help="Share of attempts.")
@click.option("--stalls", type=click.FloatRange(0, 0.5), default=0.0, show_default=True, help="Share 5 times as long.")
@click.option("--static", is_flag=True, help="Deal the scenes to the nodes beforehand (dynload: false).")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs by chance of each number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def simulate(
    job: Path | None,
    scenes: int | None,
    episodes: int | None,
    cost: float,
    spread: float,
    scene_spread: float,
    load: float,
    nodes: tuple[int, ...],
    slots: int,
    speed_spread: float,
    mtbf: float,
    repair: float,
    crashes: float,
    stalls: float,
    static: bool,
    seeds: int,
    as_json: bool,
) -> None:
    """Tell how long a job would take, and where the slots' time would go, for several numbers of nodes.

    The scheduler and the nodes' decisions are the real ones; time, network and compute workers are simulated. JOB gives
    the scenes and episodes, unless they are given as options. Spreads are standard deviations of the logarithm: 0.3 is
    about 30 %. An episode that was measured once (`nimbusctl run` prints it) gives --cost and --load.

    \b
    What do 16 nodes of 8 GPUs bring for 2,560 scenes of 20 episodes that take a minute each?
      nimbusctl simulate --scenes 2560 --episodes 20 --cost 60 --load 30 --slots 8 --nodes 1,4,16 --mtbf 500

    A simulated episode takes about 0.2 ms: 50,000 episodes take some 10 s for each number of nodes and seed.
    """  # noqa: D301 - click takes the character itself for its mark
    if job is not None:
        from nimbusd.job import read_apart

        loaded = read_apart(job).job
        scenes, episodes = scenes or len(loaded.scenes), episodes or loaded.episodes_per_scene
    if scenes is None or episodes is None:
        raise click.UsageError("give a JOB file, or both --scenes and --episodes")
    if scenes * episodes > MANY_EPISODES:
        raise click.UsageError(
            f"{scenes * episodes:,} episodes take too long to simulate (at most {MANY_EPISODES:,}); "
            "give fewer --episodes: efficiency hardly changes above some tens per scene, and time scales with them"
        )
    question = CapacityQuestion(
        scenes,
        episodes,
        cost,
        scene_spread,
        spread,
        None,
        load,
        slots,
        speed_spread,
        mtbf * 3600,
        repair,
        crashes,
        stalls,
        dynload=not static,
    )
    answers = {number: _answers(question, number, seeds, quiet=as_json) for number in nodes}
    if as_json:
        rows = [{**asdict(each), "efficiency": each.efficiency} for several in answers.values() for each in several]
        report = {"question": asdict(question), "answers": rows}
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        make_console().print(_table(question, answers))


def _answers(question: CapacityQuestion, nodes: int, seeds: int, *, quiet: bool) -> list[Answer]:
    found = []
    for seed in range(seeds):
        if not quiet and sys.stderr.isatty():
            write_raw(sys.stderr, f"\r{nodes} nodes, seed {seed + 1} of {seeds} ")
        found.append(answer(question, nodes, seed))
    if not quiet and sys.stderr.isatty():
        write_raw(sys.stderr, "\r" + 40 * " " + "\r")
    return found


def _table(question: CapacityQuestion, answers: dict[int, list[Answer]]) -> Table:
    table = Table(
        title=f"{question.scenes:,} scenes × {question.episodes} episodes, {question.slots} slots per node",
        caption="bound: 100 % is what no order of work can beat. The last four: of the slots' time.",
        box=None,
    )
    for name in ("nodes", "slots", "time", "±", "episodes/h", "bound", "useful", "loading", "lost", "idle"):
        table.add_column(name, justify="right", no_wrap=True)
    for nodes, several in answers.items():

        def mean(pick: Callable[[Answer], float], several: Sequence[Answer] = several) -> float:
            return statistics.fmean(map(pick, several))

        makespan_s = mean(lambda a: a.makespan_s)
        spread_s = statistics.stdev(a.makespan_s for a in several) if len(several) > 1 else 0.0
        table.add_row(
            str(nodes),
            str(nodes * question.slots),
            _duration(makespan_s),
            _duration(spread_s),
            f"{mean(lambda a: a.episodes / a.makespan_s) * 3600:,.0f}",
            *(
                f"{100 * share:.1f}%"
                for share in (
                    mean(lambda a: a.efficiency),
                    mean(lambda a: a.useful),
                    mean(lambda a: a.loading),
                    mean(lambda a: a.lost),
                    mean(lambda a: a.idle),
                )
            ),
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60:02}m"
