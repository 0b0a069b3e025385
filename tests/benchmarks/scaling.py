"""The makespan on 8 to 1,024 GPUs, by the simulator with the real scheduler and real node machines.

    python -m tests.benchmarks.scaling [--slots 8,128] [--seeds N] [--processes N] [--json] [--plot FILE.svg]

The job: 2,560 scenes of 20 episodes. An episode costs 60 s on average, lognormal: its logarithm has a standard
deviation of 0.58 between scenes and 0.3 within one. The first was chosen so that whole-scene pull comes to 86% at
128 GPUs, relative to 8, as published for such a system. Loading a scene takes a worker 30 s. Machines have 8 GPUs, and
speeds with a standard deviation of 10%; each fails every 200 hours and is back after 5 minutes; 0.2% of the attempts
crash, 0.2% take five times as long. All is drawn from the seed, equal for all policies.

Policies: `static` deals the scenes to the GPUs round by round beforehand; `whole scenes` has every GPU pull the next
scene when it has done the last one; `ours` is the scheduler as shipped, told of each scene's cost with an error of a
standard deviation of 0.5 (a factor of 1.6); `ours unhinted` is told nothing.

Columns, mean ± standard deviation over the seeds. relative: total speed × makespan at 8 GPUs, divided by the same at
this number, of one seed and policy (total speed: GPUs weighted by their speed). of bound: lower bound of the makespan
divided by it; the bound is the larger of all work, with one loading for each scene, on all GPUs, and of the longest
episode with its loading on the fastest GPU. No scheduler can do better than 100%, and none knows costs beforehand.
loads: time in loading scenes; idle: time without anything to do, nodes that are down included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nimbusd.core.master.facts import Order
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.simulate.capacity import Answer, CapacityQuestion, answer

GPUS_PER_NODE = 8
BASE = 8
SLOTS = (8, 32, 128, 512, 1024)
GOAL = 0.97
GOAL_SLOTS = 128
COMPARED = ("whole scenes", "ours")
"""These run all seeds at 8 GPUs and where the goal is; the others, and other numbers of GPUs, an eighth of them."""
JOB = CapacityQuestion(
    scenes=2560,
    episodes=20,
    mean_s=60.0,
    scene_spread=0.58,
    episode_spread=0.3,
    hint_spread=0.5,
    load_s=30.0,
    slots=GPUS_PER_NODE,
    speed_spread=0.1,
    mtbf_s=200 * 3600.0,
    crashes=0.002,
    stalls=0.002,
)


class WholeScenes(Scheduler):
    """Gives every node that holds nothing the next scene, all of it."""

    def _feed(self, now: float) -> list[Order]:
        orders: list[Order] = []
        for name in list(self._hungry):
            node = self.nodes.get(name)
            scenes = next((job.pending.scenes for job in self.tasks), {})
            if node is None or not scenes:
                break
            del self._hungry[name]
            if self.tasks.open_episodes(name):
                continue
            job, scene = next(iter(self.tasks)), next(iter(scenes))
            orders += self.tasks.grant(job, scene, name, scenes[scene].take(JOB.episodes), now)
        return orders


POLICIES = {
    "static": (replace(JOB, dynload=False, one_slot_nodes=True), Scheduler),
    "whole scenes": (replace(JOB, one_slot_nodes=True), WholeScenes),
    "ours unhinted": (replace(JOB, hint_spread=None), Scheduler),
    "ours": (JOB, Scheduler),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one number of GPUs. Pairs are mean and standard deviation."""

    policy: str
    slots: int
    seeds: int
    hours: tuple[float, float]
    relative: tuple[float, float]
    of_bound: tuple[float, float]
    loads: float
    lost: float
    idle: float


def run(policy: str, slots: int, seed: int) -> Answer:
    question, decider = POLICIES[policy]
    return answer(question, slots // GPUS_PER_NODE, seed, decider)


def _pair(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def table(answers: dict[tuple[str, int, int], Answer]) -> list[Row]:
    rows = []
    for policy, slots in dict.fromkeys((policy, slots) for policy, slots, _ in answers):
        of_seed = {seed: each for (p, s, seed), each in answers.items() if (p, s) == (policy, slots)}
        base = {seed: answers[policy, BASE, seed] for seed in of_seed}
        relative = [base[k].makespan_s * base[k].speed / (a.makespan_s * a.speed) for k, a in of_seed.items()]
        rows.append(
            Row(
                policy,
                slots,
                len(of_seed),
                _pair(each.makespan_s / 3600 for each in of_seed.values()),
                _pair(relative),
                _pair(each.efficiency for each in of_seed.values()),
                statistics.fmean(each.loading for each in of_seed.values()),
                statistics.fmean(each.lost for each in of_seed.values()),
                statistics.fmean(each.idle for each in of_seed.values()),
            )
        )
    return rows


def show(rows: Sequence[Row]) -> None:
    print(f"{'policy':<15}{'GPUs':>6}{'seeds':>6}{'hours':>16}{'relative':>17}{'of bound':>17}  loads   lost   idle")
    for row in rows:
        hours = f"{row.hours[0]:.2f} ± {row.hours[1]:.2f}"
        relative, of_bound = (f"{100 * m:.1f} ± {100 * d:.1f}%" for m, d in (row.relative, row.of_bound))
        shares = "".join(f"{100 * share:6.1f}%" for share in (row.loads, row.lost, row.idle))
        print(f"{row.policy:<15}{row.slots:>6}{row.seeds:>6}{hours:>16}{relative:>17}{of_bound:>17}{shares}")


def plot(rows: Sequence[Row], file: Path) -> None:
    """Relative efficiency over the number of GPUs, as an SVG picture."""
    left, top, width, height = 60.0, 20.0, 560.0, 300.0
    sizes = sorted({row.slots for row in rows})
    lowest = min(0.5, *(row.relative[0] for row in rows))
    xs = {slots: left + width * i / max(1, len(sizes) - 1) for i, slots in enumerate(sizes)}

    def y(share: float) -> float:
        return top + height * (1.02 - share) / (1.02 - lowest)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="800" height="370" font-family="sans-serif" font-size="12">'
    ]
    for percent in range(100, int(100 * lowest) - 1, -10):
        at = y(percent / 100)
        parts.append(
            f'<path d="M{left} {at:.1f}h{width}" stroke="#ddd"/><text x="20" y="{at + 4:.1f}">{percent}%</text>'
        )
    parts += [f'<text x="{xs[slots] - 8:.0f}" y="{top + height + 20}">{slots}</text>' for slots in sizes]
    parts.append(f'<text x="{left}" y="{top + height + 40}">GPUs; efficiency relative to {BASE}</text>')
    for color, policy in zip(("#999999", "#d95f02", "#7570b3", "#1b9e77"), POLICIES, strict=True):
        points = [(xs[row.slots], y(row.relative[0])) for row in rows if row.policy == policy]
        if points:
            line = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
            parts.append(
                f'<text x="{points[-1][0] + 8:.0f}" y="{points[-1][1] + 4:.1f}" fill="{color}">{policy}</text>'
            )
    file.write_text("\n".join([*parts, "</svg>\n"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", default=",".join(map(str, SLOTS)), help="numbers of GPUs, multiples of 8")
    parser.add_argument("--policies", default=",".join(POLICIES), help="which of them to compare")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    args = parser.parse_args()
    sizes = sorted({BASE, *map(int, args.slots.split(","))})
    few = -(-args.seeds // 8)
    policies = args.policies.split(",")
    if unknown := [policy for policy in policies if policy not in POLICIES]:
        parser.error(f"there is no policy {unknown[0]!r}; there are: {', '.join(POLICIES)}")
    cases = [
        (policy, slots, seed)
        for policy in policies
        for slots in sizes
        for seed in range(args.seeds if policy in COMPARED and slots in (BASE, GOAL_SLOTS) else few)
    ]
    answers: dict[tuple[str, int, int], Answer] = {}
    with ProcessPoolExecutor(args.processes) as pool:
        for case, each in zip(cases, pool.map(run, *zip(*cases, strict=True)), strict=True):
            answers[case] = each
            if sys.stderr.isatty():
                print(f"{len(answers)}/{len(cases)}", end="\r", file=sys.stderr)
    rows = table(answers)
    reached = [row.relative[0] for row in rows if (row.policy, row.slots) == ("ours", GOAL_SLOTS)]
    if args.plot:
        plot(rows, args.plot)
    if args.json:
        print(json.dumps({"goal": GOAL, "reached": reached, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(rows)
        if reached:
            print(f"\ngoal at {GOAL_SLOTS} GPUs: {100 * GOAL:.0f}%; ours: {100 * reached[0]:.1f}%")
    sys.exit(1 if reached and reached[0] < GOAL else 0)


if __name__ == "__main__":
    main()
