"""SIGKILL at random moments in a cluster: what is lost (nothing), made twice (nothing), and how soon it goes on.

    python -m tests.benchmarks.cluster_kills [JOB] [--kills 200] [--nodes 3] [--seed 0] [--pause SECONDS]
                                             [--set KEY=VALUE] [--keep FOLDER] [--json]

Runs the job once undisturbed, then again and again on a cluster of one master and some nodes with one compute worker
each, all of them processes of this machine. Master, nodes and compute workers are killed in turn, each a random time
after the last kill, and restarted at once, as systemd would. Each job has its own name and output; when one has ended
the cluster is left as it is, its output is inspected, and the next one is submitted, until there were enough kills.

`nimbusctl chaos` injects more kinds of faults than kills; this one kills at a pace, of whole processes only.

Episodes are counted in the ledger, in the master's events, and as pieces on disk. `--keep` leaves the last output in
FOLDER, for a reader of the dataset.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nimbusd.chaos.commit_events import CommitEvents
from nimbusd.client import ENDED, Client, WaitTimeout
from nimbusd.job import Job
from tests.benchmarks.kills import CHECKS, inspect, options, overrides_of, report, undisturbed
from tests.support.cluster import Cluster, Daemon

KINDS = ("master", "node", "worker")
STUCK_S = 900.0
"""A job that has not ended so long after the last kill never will."""
QUIET_S = 30.0
MOST_LISTEN_S = 5.0
MOST_ATTEMPTS = 100
"""An episode that is hit again and again is not to blame: none shall be quarantined."""


class Storm:
    """Kills one process after another, and starts it again."""

    def __init__(self, cluster: Cluster, nodes: int, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._turns = itertools.cycle(KINDS)
        self.killed: Counter[str] = Counter()
        self.listen_s: list[float] = []
        self.orphans = 0
        self.exits = 0
        for number in range(nodes):
            cluster.start_node(f"w{number}")

    def strike(self) -> None:
        """Kill one process of the kind whose turn it is."""
        for name, daemon in list(self._cluster.nodes.items()):
            if not daemon.alive:  # by itself: what systemd restarts, and we count
                self.exits += 1
                print(f"node {name} ended by itself:\n{daemon.tail()}", file=sys.stderr)
                self._cluster.start_node(name)
        kind = next(self._turns)
        match kind:
            case "master":
                self._cluster.master.kill()
                master = self._cluster.start_master()
                self.listen_s.append(master.seconds_until("listening on"))
            case "node":
                name = self._rng.choice(sorted(self._cluster.nodes))
                self.orphans += len(self._cluster.nodes[name].kill())
                self._cluster.start_node(name)
            case _:
                workers = [w for daemon in self._nodes() for w in daemon.compute_workers()]
                if not workers:
                    return
                self._rng.choice(workers).kill()
        self.killed[kind] += 1

    def _nodes(self) -> list[Daemon]:
        return list(self._cluster.nodes.values())


def run_job(client: Client, storm: Storm, job: Job, kills: int, pause_s: float, rng: random.Random) -> str:
    """Run a job to its end through kills, until `kills` have been done in all. Returns its last state."""
    client.submit(job)
    while storm.killed.total() < kills:
        try:
            return client.wait(job.name, rng.uniform(0.0, pause_s)).state
        except WaitTimeout:
            storm.strike()
    return client.wait(job.name, STUCK_S).state


def wait_until_quiet(client: Client) -> None:
    """Wait until no node holds an episode: what is in a node's hands at the end of a job is then put away."""
    ends = time.monotonic() + QUIET_S
    while any(node.episodes or node.running for node in client.nodes()) and time.monotonic() < ends:
        time.sleep(0.2)


def measure(args: Any, overrides: list[str], folder: Path) -> dict[str, Any]:
    """The figures of the table."""
    calm, expected, calm_s = undisturbed(args.job, overrides, folder / "calm")
    pause_s = args.pause if args.pause is not None else calm_s / 2
    limits = calm.limits.model_copy(update={"attempts": MOST_ATTEMPTS})
    rng = random.Random(args.seed)
    figures: Counter[str] = Counter()
    began = time.monotonic()
    with Cluster(folder, heartbeat_s=1.0, dead_after_s=5.0, env={"TMPDIR": str(folder)}) as cluster:
        client = cluster.client()
        commits = CommitEvents(cluster.client())
        commits.start()
        storm = Storm(cluster, args.nodes, rng)
        while storm.killed.total() < args.kills:
            name = f"{calm.name}-{figures['jobs']}"
            job = dataclasses.replace(calm, name=name, output=folder / name, limits=limits)
            state = run_job(client, storm, job, args.kills, pause_s, rng)
            assert state in ENDED
            wait_until_quiet(client)
            found = inspect(job, cluster.state / "ledger.sqlite", commits.of(name), expected)
            found["not_complete"] = int(state != "complete")
            figures.update(found)
            figures["jobs"] += 1
            done = f"{storm.killed.total():>4} kills, {figures['jobs']:>3} jobs, {time.monotonic() - began:6.0f} s"
            print(f"{done}: {name} is {state}; {dict(+found) or 'all is well'}", file=sys.stderr, flush=True)
            if args.keep is not None:
                shutil.rmtree(args.keep, ignore_errors=True)
                shutil.copytree(job.output, args.keep, symlinks=True)
            if not found.total():
                shutil.rmtree(job.output)
        listen_s = sorted(storm.listen_s) or [0.0]
    checks = (*CHECKS, "not_complete")
    return {
        **{f"kills_of_{kind}s": storm.killed[kind] for kind in KINDS},
        "jobs": figures["jobs"],
        "episodes_per_job": calm.total_episodes,
        **{name: figures[name] for name in checks},
        "orphaned_compute_workers": storm.orphans,
        "nodes_that_ended_themselves": storm.exits,
        "master_listens_min_s": round(listen_s[0], 2),
        "master_listens_median_s": round(statistics.median(listen_s), 2),
        "master_listens_max_s": round(listen_s[-1], 2),
        "ok": not any(figures[name] for name in checks) and not storm.orphans and listen_s[-1] < MOST_LISTEN_S,
    }


def main() -> None:
    parser = options(__doc__, 200)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pause", type=float, help="longest time between kills [default: half an undisturbed run]")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the last output there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        figures = measure(args, overrides_of(args), Path(folder))
    report(figures, args.json)


if __name__ == "__main__":
    main()
