"""The loop of the lockstep baselines: one process that makes one trajectory after another, each from a cold start."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from nimbusd.job import Job
from nimbusd.stages.seeds import stream
from nimbusd.stages.types import Episode, EpisodeRequest, Observation


def serve(doc: str | None, render: Callable[..., Observation]) -> None:
    """Run the job of a JSON file on standard input; the result goes to the file that the command line names.

    doc: of the program. render: called with job, scene, sequence and the order's options.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    order = orjson.loads(sys.stdin.buffer.read())
    episodes = [(str(scene), int(index)) for scene, index in order["episodes"]]
    result = run_lockstep(Job.from_dict(order["job"]), episodes, Path(order["output"]), render, order["options"])
    args.result.write_bytes(orjson.dumps(result))


def run_lockstep(
    job: Job,
    episodes: list[tuple[str, int]],
    output: Path,
    render: Callable[..., Observation],
    options: dict[str, bool],
) -> dict[str, Any]:
    """Make the episodes one after another. Returns seconds by stage, and frames."""
    (output / ".pieces").mkdir(parents=True)
    seconds: defaultdict[str, float] = defaultdict(float)
    frames = 0

    def timed(stage: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = call(*args, **options)
        seconds[stage] += time.perf_counter() - started
        return result

    pieces = []
    for scene_name, index in episodes:
        loader, planner, writer = job.make("load"), job.make("plan"), job.make("store")
        scene = timed("load", loader.load_asset, job.scene_config(scene_name))
        sequence = timed("plan", planner.gen_sequence, scene, stream(job.seed, scene_name, index, "plan"))
        observation = timed("render", render, job, scene, sequence, **options)
        episode = Episode(EpisodeRequest(job.name, scene_name, index), output, scene=scene, sequence=sequence)
        pieces.append(timed("store", writer.save_data, sequence, observation, episode))
        frames += len(sequence)
    timed("publish", writer.publish, output, pieces, {"name": job.name, "seed": job.seed}, True)
    return {"seconds": dict(seconds), "frames": frames}
