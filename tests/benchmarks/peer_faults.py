"""The price of small faults in a run of 12 episodes: none, one hang of a renderer, one of a planner, four of renderers.

    python -m tests.benchmarks.peer_faults [--workers 2] [--mode fused|decoupled] [--set KEY=VALUE] [--json]

The open-source peer of nimbusd, run unmodified with toy components on 12 episodes, loses 1 episode to one hang of a
renderer and 8 to four of them, makes 6 twice after one hang of a planner, and exits with 0 each time. These are the
same four cases: `nimbusctl run` with toy components, two scenes of six episodes. A hang is in C code that holds the
interpreter's lock and never returns. Saved episodes are counted in the ledger and in the published dataset,
duplicates in the ledger, in the commits that were told, and as pieces on disk.

Exits with 1 unless all four cases end with 12 saved, 0 lost, 0 duplicated and exit status 0, and each fault was met.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nimbusd.core.ids import JobId
from nimbusd.core.node.split import Mode
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import ledger_path
from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.types import Observation, Scene, Sequence
from tests.support.toy import ToyPlanner, ToyPlannerArgs, ToyRenderer

SCENES, EPISODES = ("a", "b"), 6
WANTED = len(SCENES) * EPISODES
BEAT_TIMEOUT_S = 1.0
PEER = {
    "nothing": "0 lost",
    "one renderer hangs": "1 lost",
    "one planner hangs": "6 duplicated",
    "four renderers hang": "8 lost",
}
"""Their result in the peer, which exits with 0 in all cases."""


class HangArgs(ComponentArgs):
    """hangs: how many calls, over all processes, never return. marks: folder in which they are counted."""

    hangs: int
    marks: Path


class PlannerHangArgs(ToyPlannerArgs, HangArgs):
    """A toy planner's, and when to hang."""


def _hang(args: HangArgs) -> None:
    """Hang if this call is one of those that shall: every second one, until there were enough."""
    args.marks.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        try:
            os.close(os.open(args.marks / str(number), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            number += 1
        else:
            break
    if number % 2 and number // 2 < args.hangs:
        (args.marks / f"hang{number}").touch()
        ctypes.PyDLL(None).pause()


class HangingRenderer(ToyRenderer):
    """Hangs in C in the first episodes that it is told to."""

    args_model = HangArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        _hang(self.args)
        return super().gen_obs(seq)


class HangingPlanner(ToyPlanner):
    """The same for planning."""

    args_model = PlannerHangArgs
    args: Any

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        _hang(self.args)
        return super().gen_sequence(scene, rng)


@dataclass(frozen=True, slots=True)
class Case:
    """The processes that hang, and how often."""

    name: str
    stage: str
    hangs: int


CASES = (
    Case("nothing", "render", 0),
    Case("one renderer hangs", "render", 1),
    Case("one planner hangs", "plan", 1),
    Case("four renderers hang", "render", 4),
)


def write_job(case: Case, folder: Path) -> Path:
    """The job file of a case."""
    hanging = {"hangs": case.hangs, "marks": str(folder / "marks")}
    pipeline: dict[str, Any] = {
        stage: {"component": f"tests.support.toy:Toy{name}"}
        for stage, name in (("load", "Loader"), ("plan", "Planner"), ("render", "Renderer"), ("store", "Writer"))
    }
    component = "HangingPlanner" if case.stage == "plan" else "HangingRenderer"
    pipeline[case.stage] = {"component": f"tests.benchmarks.peer_faults:{component}", "args": hanging}
    job = {
        "name": "peer_faults",
        "output": str(folder / "out"),
        "scenes": [{"name": name} for name in SCENES],
        "episodes_per_scene": EPISODES,
        "pipeline": pipeline,
        "limits": {"beat_timeout_s": BEAT_TIMEOUT_S},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def run_case(case: Case, folder: Path, workers: int, overrides: list[str]) -> dict[str, Any]:
    """One row of the table."""
    folder.mkdir()
    changes = [part for change in overrides for part in ("--set", change)]
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(write_job(case, folder)), "--json"]
    began = time.monotonic()
    done = subprocess.run([*command, "--workers", str(workers), *changes], capture_output=True, text=True)
    took_s = time.monotonic() - began
    events = [json.loads(line) for line in done.stdout.splitlines()]
    told = Counter((e["scene"], e["index"]) for e in events if e["event"] == "episode_committed")
    output = folder / "out"
    with Ledger.read(ledger_path(output)) as ledger:
        committed = [(piece.key.scene, piece.key.index) for piece in ledger.committed(JobId("peer_faults"))]
    published = len((output / "dataset.txt").read_text().split("\n\n"))
    pieces = Counter(path.name.rpartition(".")[0] for path in (output / ".pieces").iterdir())
    saved = min(len(set(committed)), published)
    return {
        "case": case.name,
        "saved": saved,
        "lost": WANTED - saved,
        "duplicated": sum(number - 1 for count in (Counter(committed), told, pieces) for number in count.values()),
        "exit_status": done.returncode,
        "hangs": len(list(folder.glob("marks/hang*"))),
        "seconds": round(took_s, 1),
        "ok": saved == WANTED
        and published == WANTED
        and max((*Counter(committed).values(), *told.values(), *pieces.values())) == 1
        and done.returncode == 0
        and len(list(folder.glob("marks/hang*"))) == case.hangs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.AUTO.value)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peer-faults-") as folder:
        overrides = [f"mode={args.mode}", *args.overrides]
        rows = [run_case(case, Path(folder) / str(n), args.workers, overrides) for n, case in enumerate(CASES)]
    ok = all(row["ok"] for row in rows)
    if args.json:
        print(json.dumps({"cases": rows, "peer": PEER, "ok": ok}))
    else:
        _print(rows, ok)
    sys.exit(0 if ok else 1)


def _print(rows: list[dict[str, Any]], ok: bool) -> None:
    columns = ("saved", "lost", "duplicated", "exit status")
    print(
        f"{'12 episodes':<22}" + "".join(f"{name:>12}" for name in (*columns, "hangs met", "seconds")) + "   the peer"
    )
    for row in rows:
        values = [row[name.replace(" ", "_")] for name in (*columns, "hangs", "seconds")]
        print(f"{row['case']:<22}" + "".join(f"{value:>12}" for value in values) + f"   {PEER[row['case']]}")
    print("12 saved, 0 lost, 0 duplicated, status 0 in all" if ok else "NOT as it must be: see above")


if __name__ == "__main__":
    main()
