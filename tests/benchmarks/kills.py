"""SIGKILL at random moments: what a job loses (nothing), makes twice (nothing), and whether its data is the same.

    python -m tests.benchmarks.kills [JOB] [--kills 30] [--seed 0] [--set KEY=VALUE] [--json]

Runs the job once undisturbed, with one worker, then again with two workers and kills: the daemon and its workers
in turn, each a random time after the last (re)start. Killing a worker leaves the run going; killing the daemon ends
it, and the same command is started again, as a user would. At the end the published state columns of both are
compared. By default the job is the demo, with frames of 64x48 pixels so that it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from nimbusd.job import read_job
from nimbusd.master.ledger import Ledger
from nimbusd.master.output import ledger_path

SMALL = ("pipeline.plan.args.cameras.0.width=64", "pipeline.plan.args.cameras.0.height=48")


def start(job: Path, output: Path, workers: int, overrides: list[str]) -> subprocess.Popen[bytes]:
    """`nimbusctl run`, its events added to `<output>.events`."""
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--output", str(output), "--json"]
    command += ["--workers", str(workers), *[part for change in overrides for part in ("--set", change)]]
    with output.with_suffix(".events").open("ab") as events:
        return subprocess.Popen(command, stdout=events)


def run_with_kills(
    job: Path, output: Path, overrides: list[str], kills: int, pause_s: float, rng: random.Random
) -> Counter[str]:
    """Run the job to its end through at most `kills` kills (it may end before).

    Returns how many of each kind of process were killed. Raises RuntimeError if a run fails by itself.
    """
    killed: Counter[str] = Counter()
    process = start(job, output, 2, overrides)
    while killed.total() < kills:
        try:
            status = process.wait(rng.uniform(0.0, pause_s))
        except subprocess.TimeoutExpired:
            victims = psutil.Process(process.pid).children()
            if killed["daemon"] <= killed["worker"] or not victims:
                process.kill()
                process.wait()
                psutil.wait_procs(victims, timeout=10)
                killed["daemon"] += 1
                process = start(job, output, 2, overrides)
            else:
                rng.choice(victims).kill()
                killed["worker"] += 1
            continue
        if status != 0:
            raise RuntimeError(f"the run ended with status {status}")
        break
    if process.wait() != 0:
        raise RuntimeError(f"the last run ended with status {process.returncode}")
    return killed


def committed(output: Path) -> list[tuple[str, int]]:
    """Committed episodes as the ledger has them."""
    ledger = Ledger.read(ledger_path(output))
    try:
        return [(piece.key.scene, piece.key.index) for piece in ledger.committed()]
    finally:
        ledger.close()


def commits_told(output: Path) -> Counter[tuple[str, int]]:
    """How often each episode was said to be committed, over all runs. A killed daemon may not have said it."""
    told: Counter[tuple[str, int]] = Counter()
    for line in output.with_suffix(".events").read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a daemon died in the middle of this line
        if event["event"] == "episode_committed":
            told[event["scene"], event["index"]] += 1
    return told


def state_columns(dataset: Path) -> pa.Table:
    """Every column of the frames that is not an image, in the order of the files."""
    tables = [pq.read_table(path) for path in sorted(dataset.glob("data/*/*.parquet"))]
    table = pa.concat_tables(tables)
    return table.select([field.name for field in table.schema if not pa.types.is_struct(field.type)])


def measure(job: Path, overrides: list[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The figures of the table."""
    calm = folder / "calm"
    began = time.monotonic()
    if start(job, calm, 1, overrides).wait() != 0:
        raise RuntimeError("the undisturbed run failed")
    calm_s = time.monotonic() - began
    wanted = read_job(job, output=calm, overrides=overrides).total_episodes
    expected = state_columns(calm / "dataset")
    rng = random.Random(seed)
    figures: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        output = folder / f"stormy{figures['jobs']}"
        killed += run_with_kills(job, output, overrides, kills - killed.total(), calm_s / 2, rng)
        figures["jobs"] += 1
        episodes = committed(output)
        figures["lost"] += wanted - len(episodes)
        figures["duplicated"] += sum(number - 1 for number in commits_told(output).values())
        pieces = sum(1 for _ in (output / ".pieces").iterdir())
        figures["leftover_pieces"] += pieces - len(episodes)
        figures["other_state_columns"] += not state_columns(output / "dataset").equals(expected)
        check = subprocess.run([sys.executable, "-m", "nimbusd.cli", "verify", str(output)], stdout=subprocess.PIPE)
        figures["verify_failed"] += check.returncode != 0
    checks = ("lost", "duplicated", "leftover_pieces", "other_state_columns", "verify_failed")
    return {
        "kills_of_daemon": killed["daemon"],
        "kills_of_workers": killed["worker"],
        "jobs": figures["jobs"],
        "episodes_per_job": wanted,
        **{name: figures[name] for name in checks},
        "ok": not any(figures[name] for name in checks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=Path("examples/nav_mesh.yaml"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    overrides = list(SMALL) if args.overrides is None else args.overrides
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        figures = measure(args.job, overrides, args.kills, args.seed, Path(folder))
    if args.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name.replace('_', ' '):<22}{value!s:>6}" for name, value in figures.items()))
    sys.exit(0 if figures["ok"] else 1)


if __name__ == "__main__":
    main()
