"""One attempt at one episode in a process of its own, so that a crash or a hang is a result as well.

Started by `nimbusd.replay.replayer` as `python -m nimbusd.replay.attempt`. It reports as JSON lines to a file
descriptor; standard input, output and error are the terminal's, for the debugger.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import os
import pdb
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from nimbusd import __version__
from nimbusd.job import Job
from nimbusd.makers.leaving import leave_soon
from nimbusd.node.environment import environment_for
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.runner import Components, run_stages
from nimbusd.stages.stage_names import STAGES
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.supervisor.prctl import become_subreaper, die_with_parent
from nimbusd.supervisor.target import dump_stacks_when_asked

METHODS = {
    "load": ("load_asset",),
    "randomize": ("randomize",),
    "plan": ("gen_sequence",),
    "render": ("load", "gen_obs"),
    "store": ("save_data",),
}
"""The methods of each component that the stage runner calls."""
_BEAT_EVERY_S = 0.05


class _Enough(Exception):
    """The next stage shall not run."""


class ForegroundAttempt:
    """An attempt as its request describes it: see `ReplayRequest.described`."""

    def __init__(self, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        self._job = Job.from_dict(request["job"])
        self._request = EpisodeRequest(
            self._job.name,
            request["scene"],
            request["index"],
            self._job.variant(request["index"]),
            request["attempt"],
        )
        self._output = Path(request["output"])
        self._fingerprint: str = request["fingerprint"]
        self._until: str = request["until"]
        self._device: str = request["device"]
        self._debugger: bool = request["debugger"]
        self._tell = tell
        self._beaten_at = 0.0
        self._episode: Episode | None = None

    def run(self) -> None:
        """Make the components and the episode, and tell how it ended."""
        began, here = time.perf_counter(), environment_for(self._job)
        components = self._open()
        self._tell({"event": "opened", "seconds": time.perf_counter() - began})
        episodes = run_stages(
            components,
            [self._request],
            job_seed=self._job.seed,
            scene_config=self._job.scene_config,
            output=self._output,
            context={
                "job": {"name": self._job.name, "seed": self._job.seed, "fingerprint": self._fingerprint},
                "components": self._job.describe(),
                "node": platform.node(),
                "slot": "replay",
                "nimbusd": __version__,
                "environment": {"hash": here.hash, "packages": dict(here.packages)},
                "started_unix_s": time.time(),
            },
            writers=0,
            seen=self._stage_began,
        )
        try:
            try:
                episode = next(episodes)
            except _Enough:
                assert self._episode is not None
                episode = self._episode
            self._tell(_ended(episode))
        finally:
            episodes.close()
            components.close()

    def _open(self) -> Components:
        job = self._job
        components = job.make_components()
        for stage, component in components.by_stage().items():
            component.beat = self._beat
            if self._debugger:
                for method in METHODS[stage]:
                    setattr(component, method, self._debugged(getattr(component, method)))
        if STAGES.index(self._until) >= STAGES.index("render"):
            assert components.renderer is not None
            components.renderer.open(self._device)
        return components

    def _debugged(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            try:
                return method(*args)
            except Exception as error:
                self._tell({"event": "debugger"})
                print(f"{type(error).__name__}: {error}", flush=True)
                pdb.post_mortem(error.__traceback__)
                raise

        return call

    def _stage_began(self, stage: str, episode: Episode) -> None:
        self._episode = episode
        if STAGES.index(stage) > STAGES.index(self._until):
            raise _Enough
        self._tell({"event": "stage", "stage": stage, "timings_s": episode.timings_s})

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten_at >= _BEAT_EVERY_S:
            self._beaten_at = now
            self._tell({"event": "beat"})


def _ended(episode: Episode) -> dict[str, Any]:
    sequence, piece = episode.sequence, episode.piece
    return {
        "event": "ended",
        "timings_s": episode.timings_s,
        "failure": None if episode.failure is None else dataclasses.asdict(episode.failure),
        "frames": None if sequence is None else len(sequence),
        "folder": None if piece is None else piece.folder,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="nimbusd.replay.attempt", description=__doc__)
    parser.add_argument("--request", type=Path, required=True, help="JSON file that says what to make")
    parser.add_argument("--tell", type=int, required=True, help="file descriptor to tell of it, as JSON lines")
    parser.add_argument("--parent", type=int, required=True, help="pid of the replayer; we die with it")
    parser.add_argument("--stacks", required=True, help="file to write our threads' stacks to, if we are asked")
    args = parser.parse_args()
    os.set_inheritable(args.tell, False)
    die_with_parent(args.parent)
    become_subreaper()  # so that what components start stays below us
    dump_stacks_when_asked(args.stacks)
    faulthandler.enable()

    def tell(event: dict[str, Any]) -> None:
        os.write(args.tell, orjson.dumps(event) + b"\n")

    try:
        ForegroundAttempt(orjson.loads(args.request.read_bytes()), tell).run()
    except NimbusError as error:  # no episode can be made here: a backend is missing, say
        tell({"event": "unfit", "error": str(error)})
    leave_soon(0)


if __name__ == "__main__":
    main()
