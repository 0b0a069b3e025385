"""`EnvSession`: one workflow in one process, kept in step with the scene that the pipeline is at.

A workflow has a state, the pipeline's stages have none, and any episode may follow any other. So each stage says where
it wants the workflow to be (`ScenePlace`), and the session brings it there: reset, seeded, randomized as if no episode
had been made before. Rendering always starts from the bytes of `dump_plan_info`, whether the planning was done in this
process or in another: an episode does not depend on how the work was shared out.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages.errors import ComponentError, PlanningFailed, RenderError
from nimbusd.stages.notes import Notes
from nimbusd.stages.packing import is_pickle, pack, pack_sequence, unpack, unpack_sequence
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.types import Observation, Scene, Sequence
from nimbusd.stages.workflow.base import Workflow
from nimbusd.stages.workflow.returned import frame_count, states, verdict

ENVELOPE_VERSION = 1
SEQUENCE_FILE = "sequence.msgpack"
"""Beside what `save_seq` writes: the columns and cameras of the plan, as they were described when it was made."""
_OVER_AGAIN = "the plan that was made here differs from the one that was handed over"


@dataclass(frozen=True, slots=True)
class ScenePlace:
    """A state of a workflow: task `task` of its file, randomized from `seed` (None: as reset left it).

    layout_path: hand this file to `randomization`. seq_path: take the plan from this file instead of planning.
    """

    task: int
    seed: int | None = None
    layout_path: str | None = None
    seq_path: str | None = None


@dataclass(frozen=True)
class EnvScene(Scene):
    """A scene that a workflow holds. Never leaves its process: another one loads and randomizes it again."""

    session: EnvSession | None = None
    place: ScenePlace = ScenePlace(0)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all that can be seen, and of what the workflow says it made."""
        seen = Scene.content_hash.func(self)  # type: ignore[attr-defined]
        return hashlib.sha256(seen.encode() + to_json(self.provenance)).hexdigest()


class EnvSession:
    """Drives `workflow`, called `name` in the job. seed_globals: seed `random` and `numpy.random` too."""

    def __init__(self, workflow: Workflow, name: str, *, seed_globals: bool = True) -> None:
        self.workflow = workflow
        self._name = name
        self._seed_globals = seed_globals
        self._task: int | None = None
        self._fresh: ScenePlace | None = None
        self._observed: tuple[ScenePlace, int] | None = None
        self._device: str | None = None

    def scene(self, name: str, place: ScenePlace) -> EnvScene:
        """The scene at `place`, where the workflow is afterwards. Raises PlanningFailed if it cannot be made."""
        self.go(place)
        described = self.workflow.describe_scene() or Scene(name, ())
        provenance = {
            **described.provenance,
            "workflow": {
                "name": self._name,
                "version": self.workflow.version,
                "task_file": Path(self.workflow.task_cfg_path).name,
                "task": place.task,
                "task_name": self.workflow.get_task_name(),
                "layout_seed": place.seed,
                "layout": dict(self.workflow.describe_layout()),
            },
        }
        return EnvScene(
            name=name,
            objects=described.objects,
            lights=described.lights,
            rooms=described.rooms,
            sky_color=described.sky_color,
            sky_strength=described.sky_strength,
            provenance=provenance,
            session=self,
            place=place,
        )

    def go(self, place: ScenePlace) -> None:
        """Bring the workflow to `place`, untouched by what was done in it before."""
        if self._fresh == place:
            return
        self._reset(place)
        if place.seed is not None or place.layout_path is not None:
            self._seed(place.seed or 0)
            if not self._randomized(place):
                self._fresh = None
                raise PlanningFailed("randomization_failed", f"{self._name}.randomization() found no valid layout")
        self._fresh = place

    def plan(self, place: ScenePlace, seed: int, *, with_render: bool, beat: Callable[[], None]) -> Sequence:
        """Plan at `place`, drawing from `seed`. Raises PlanningFailed where there is no plan."""
        workflow = self.workflow
        workflow._beat = beat
        self.go(place)
        described = self._planned(place, seed, with_render)
        info = b"" if with_render else self._dumped()
        envelope = {"version": ENVELOPE_VERSION, "seed": seed, "with_render": with_render, "info": info}
        return replace(described, plan_info=pack(envelope))

    def render(
        self, place: ScenePlace, seq: Sequence, *, beat: Callable[[], None], device: str, keep_files: bool
    ) -> Observation:
        """Show the states that `seq` recorded. keep_files: also keep what `save` writes, where `observe` has frames."""
        workflow = self.workflow
        workflow._beat = beat
        if self._device != device:
            workflow.use_device(device)
            self._device = device
        envelope = self._opened(seq)
        if envelope["with_render"]:
            self._plan_again(place, envelope["seed"], seq)
        else:
            self._replay(place, envelope)
        seen = workflow.observe()
        if seen is not None and not keep_files:
            return seen
        return replace(seen or Observation({}), files=self._files(workflow.save))

    def plan_files(self, place: ScenePlace, seq: Sequence) -> Observation:
        """An observation without frames: the files that `save_seq` writes of this plan, and its description."""
        self._restore(place, self._opened(seq))
        files = self._files(self.workflow.save_seq)
        return Observation({}, files={**files, SEQUENCE_FILE: pack_sequence(replace(seq, plan_info=b""))})

    # --- the parts ---

    def _reset(self, place: ScenePlace) -> None:
        self._fresh = self._observed = None
        self._seed(place.task)  # `reset` must lead to one state, also where it draws numbers
        if self._task == place.task:
            self.workflow.reset(need_preload=False)
        else:
            self._task = None
            self.workflow.init_task(place.task, need_preload=True)
            self._task = place.task

    def _randomized(self, place: ScenePlace) -> bool:
        if place.layout_path is None:
            valid = self.workflow.randomization()
        else:
            valid = self.workflow.randomization(place.layout_path)
        return verdict(f"{self._name}.randomization", valid)

    def _seed(self, *words: int) -> None:
        """Give the workflow a generator that depends on `words` alone."""
        sequence = np.random.SeedSequence(words)
        self.workflow.rng = np.random.Generator(np.random.PCG64(sequence))
        if self._seed_globals:
            first, second = (int(word) for word in sequence.spawn(1)[0].generate_state(2))
            random.seed(first)
            np.random.seed(second)  # for workflows that were written with the global generator

    def _planned(self, place: ScenePlace, seed: int, with_render: bool) -> Sequence:
        workflow = self.workflow
        self._fresh = self._observed = None
        self._seed(seed)
        workflow.planned = []
        if with_render:
            length = self._plan_with_render()
            self._observed = (place, seed)
        else:
            if place.seq_path is None:
                workflow.planned = states(f"{self._name}.generate_seq", workflow.generate_seq())
            else:
                workflow.planned = states(f"{self._name}.recover_seq", workflow.recover_seq(place.seq_path))
            length = len(workflow.planned)
        if length <= 0:
            raise PlanningFailed("no_sequence", f"{self._name} found no plan for {workflow.get_task_name()}")
        recorded = _recorded(place)
        if recorded is None:
            described = workflow.describe_seq(workflow.planned or [{} for _ in range(length)])
        else:
            described = workflow.describe_recovered(recorded)
        try:
            _ = Notes(described.notes).result
        except ComponentError as error:
            raise ComponentError(f"{self._name}.describe_seq: {error}") from error
        return described

    def _plan_with_render(self) -> int:
        """By whichever of its two names the workflow wrote it."""
        kind = type(self.workflow)
        if kind.plan_with_render is not Workflow.plan_with_render:
            return frame_count(f"{self._name}.plan_with_render", self.workflow.plan_with_render())
        return frame_count(f"{self._name}.generate_seq_with_obs", self.workflow.generate_seq_with_obs())

    def _dumped(self) -> bytes:
        info = self.workflow.dump_plan_info()
        if not isinstance(info, bytes):
            raise ComponentError(f"{self._name}.dump_plan_info() returned {type(info).__name__}, but must return bytes")
        if is_pickle(info):
            raise ComponentError(
                f"{self._name}.dump_plan_info() returned a pickle, which must not cross processes; return "
                "nimbusd.stages.workflow.pack(…) of plain values and arrays, and `unpack` it in dedump_plan_info()"
            )
        return info

    def _opened(self, seq: Sequence) -> Mapping[str, Any]:
        if not seq.plan_info:
            raise ComponentError("EnvRenderer got a sequence without plan info; plan with EnvPlanner")
        envelope: Mapping[str, Any] = unpack(seq.plan_info)
        if envelope.get("version") != ENVELOPE_VERSION:
            raise ComponentError(f"plan info has version {envelope.get('version')!r}, not {ENVELOPE_VERSION}")
        return envelope

    def _replay(self, place: ScenePlace, envelope: Mapping[str, Any]) -> None:
        self._restore(place, envelope)
        sequence = self.workflow.planned
        if (shown := frame_count(f"{self._name}.seq_replay", self.workflow.seq_replay(sequence))) != len(sequence):
            raise RenderError(f"{self._name}.seq_replay() showed {shown} of {len(sequence)} states")

    def _restore(self, place: ScenePlace, envelope: Mapping[str, Any]) -> None:
        """The layout and the sequence that were planned, in a world that knows nothing else."""
        workflow = self.workflow
        data = workflow.dedump_plan_info(envelope["info"])
        if type(workflow).randomization_from_mem is Workflow.randomization_from_mem:
            self.go(place)  # the seeds alone say the layout, and perhaps it stands there untouched
        else:
            if self._fresh != replace(place, seed=None):
                self._reset(place)
            self._seed(0 if place.seed is None else place.seed)
            if not verdict(f"{self._name}.randomization_from_mem", workflow.randomization_from_mem(data)):
                raise RenderError(
                    f"{self._name}.randomization_from_mem() could not make the layout that was planned in"
                )
        self._fresh = None
        self._seed(envelope["seed"], 1)
        workflow.planned = states(f"{self._name}.recover_seq_from_mem", workflow.recover_seq_from_mem(data))

    def _plan_again(self, place: ScenePlace, seed: int, seq: Sequence) -> None:
        """Keep the frames that are still here, or make them once more: then it must be the same plan."""
        if self._observed == (place, seed):
            return
        self.go(place)
        again = self._planned(place, seed, with_render=True)
        for key, feature in {**seq.states, **seq.actions}.items():
            other = {**again.states, **again.actions}.get(key)
            if other is None or not np.array_equal(np.asarray(feature.values), np.asarray(other.values)):
                raise RenderError(
                    f"{self._name}: {_OVER_AGAIN} in {key!r}, as its plan_with_render is not deterministic; "
                    "run this job in fused mode, so that each episode is planned and rendered in one process"
                )

    def _files(self, write: Callable[[str], int]) -> dict[str, bytes]:
        """The files that `write` writes into a folder, by path in it."""
        with tempfile.TemporaryDirectory(prefix="nimbusd-save-") as folder:
            if frame_count(f"{self._name}.{write.__name__}", write(folder)) <= 0:
                raise RenderError(f"{self._name}.{write.__name__}() saved no frames")
            root = Path(folder)
            files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
            if not files:
                raise RenderError(f"{self._name}.{write.__name__}() wrote no file into the folder that it was given")
            return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _recorded(place: ScenePlace) -> Sequence | None:
    """The description that lies beside a recorded plan, if there is one."""
    if place.seq_path is None:
        return None
    path = Path(place.seq_path)
    beside = (path if path.is_dir() else path.parent) / SEQUENCE_FILE
    return unpack_sequence(beside.read_bytes()) if beside.is_file() else None
