"""`Workflow`: a task's life from its configuration to its data, with the method names of the open-source engine.

A workflow is one stateful object per process. It parses task files, puts a world into the task's initial state,
randomizes it, plans a sequence of states, and shows these states again to cameras. The `Env` components drive it
(see `env`), so that it runs in one process or with planning and rendering apart. `docs/workflows.md` tells which
method runs where, and how to move a workflow over.

Every random draw must come from `self.rng`, which is seeded anew before `randomization` and before planning. (The
generators of `random` and `numpy.random` are seeded as well, for workflows that use these.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from nimbusd.stages.errors import ComponentError
from nimbusd.stages.packing import PlanValue, pack, unpack
from nimbusd.stages.types import Observation, Scene, Sequence

W = TypeVar("W", bound="type[Workflow]")

PLAN_FILE = "plan_info.msgpack"
"""The file that `save_seq` writes and `recover_seq` reads, unless a workflow has formats of its own."""


def _no_beat() -> None:
    pass


class Workflow(ABC):
    """Base of all workflows. Those that are marked must be written, the others have a meaning without.

    world: what `create_world` made; task_cfg_path: the task file; the rest are the job's `workflow_args`.
    version: change it when the same seed gives other episodes. requires: modules that the methods import.
    may_use: those that they import in some cases only; see `Component`.
    fps: frames per second of a sequence, where `describe_seq` is not written.
    planned: the sequence that `generate_seq` returned last; a workflow with `generate_seq_with_obs` sets it.
    """

    workflows: ClassVar[dict[str, type[Workflow]]] = {}
    version: ClassVar[str] = "1.0.0"
    requires: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()
    fps: float = 30.0
    rng: np.random.Generator
    planned: list[Any]

    def __init__(self, world: Any, task_cfg_path: str, **kwargs: Any) -> None:
        if kwargs:
            raise ComponentError(f"{type(self).__name__} knows no workflow_args {', '.join(sorted(kwargs))}")
        self.world = world
        self.task_cfg_path = task_cfg_path
        self.task_cfgs = self.parse_task_cfgs(task_cfg_path)

    @classmethod
    def register(cls, name: str) -> Callable[[W], W]:
        """Decorator: let jobs name this workflow `name`. Raises ValueError for a name that another class has."""

        def keep(workflow: W) -> W:
            other = Workflow.workflows.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (
                workflow.__module__,
                workflow.__qualname__,
            ):
                raise ValueError(f"workflow '{name}' is {other.__module__}.{other.__qualname__} already; rename yours")
            Workflow.workflows[name] = workflow
            return workflow

        return keep

    # --- what every workflow writes ---

    @abstractmethod
    def parse_task_cfgs(self, task_cfg_path: str) -> list[Any]:
        """The tasks of a task file, in order. A job's scene chooses one by position."""

    @abstractmethod
    def get_task_name(self) -> str:
        """A word for the current task, for people and folders."""

    @abstractmethod
    def reset(self, need_preload: bool) -> None:
        """Put the world into the current task's initial state, wherever it is now.

        need_preload: load assets as well; False when only the state is to go back.
        """

    @abstractmethod
    def randomization(self, layout_path: str | None = None) -> bool:
        """Randomize the layout from `self.rng`, or take it from a file. False: no valid layout was found."""

    @abstractmethod
    def generate_seq(self) -> list[Any]:
        """Plan: the states that `seq_replay` will show, in order; an empty list if there is no plan."""

    @abstractmethod
    def seq_replay(self, sequence: list[Any]) -> int:
        """Set each state of `sequence`, not its actions, and look at it. Returns how many were shown."""

    @abstractmethod
    def save(self, save_path: str) -> int:
        """Write what was planned and seen into the folder `save_path`, in the workflow's own format. Returns frames."""

    # --- the task ---

    def init_task(self, index: int, need_preload: bool = True) -> None:
        """Make task `index` of the task file the current one. Raises IndexError for one that is not there."""
        if not 0 <= index < len(self.task_cfgs):
            raise IndexError(f"{self.task_cfg_path} has tasks 0…{len(self.task_cfgs) - 1}, not {index}")
        self.task_cfg = self.task_cfgs[index]
        self.reset(need_preload)

    @classmethod
    def create_world(cls, simulator: Mapping[str, Any]) -> Any:
        """Make what `__init__` gets as `world`, such as a simulator's handle; here the job's `simulator` settings."""
        return dict(simulator)

    @classmethod  # noqa: B027 - what may be wrong is the workflow's
    def check_task(cls, task_cfg_path: str, index: int) -> None:
        """Look at task `index` of a task file without making a world; `nimbusctl check` calls it for every scene.

        Raises ComponentError or AssetError with what is wrong. Here: nothing is known about tasks.
        """

    @classmethod  # noqa: B027 - any arguments that fit `__init__` are right
    def check_args(cls, workflow_args: Mapping[str, Any]) -> None:
        """Look at a job's `workflow_args` without making a workflow; called whenever a job is read.

        Raises ComponentError with what is wrong. That `__init__` takes arguments of these names is known already.
        """

    @classmethod
    def needs(cls, workflow_args: Mapping[str, Any]) -> tuple[str, ...]:
        """Modules that a workflow made of these arguments will import; `nimbusctl check` warns of those missing."""
        return cls.requires

    @classmethod
    def modules(cls, workflow_args: Mapping[str, Any]) -> tuple[str, ...]:
        """Modules whose versions decide what a workflow made of these arguments makes: its own among them."""
        return (cls.__module__, *cls.needs(workflow_args), *cls.may_use)

    @classmethod
    def task_files(cls, task_cfg_path: str, index: int) -> list[Path]:
        """Files that task `index` needs besides its task file; their SHA-256 goes into every episode's metadata.

        Raises AssetError for one that is missing. Here: none are known.
        """
        return []

    @classmethod
    def task_modules(cls, task_cfg_path: str, index: int) -> tuple[str, ...]:
        """Modules that planning task `index` imports beside `requires`. Here: none."""
        return ()

    @classmethod
    def task_images(cls, task_cfg_path: str, index: int) -> dict[str, tuple[int, int]]:
        """Camera → width and height in pixels of what task `index` will show. Here: none is stated."""
        return {}

    @classmethod
    def unfit(cls, workflow_args: Mapping[str, Any], render: bool) -> list[str]:
        """Faults of this machine that keep the workflow from working, a sentence each, before anything runs.

        workflow_args: those of the job. render: whether it is to show what it plans. Here: nothing is known.
        """
        return []

    def use_device(self, device: str) -> None:  # noqa: B027 - a workflow without a device has nothing to do
        """Told before the first `seq_replay` in a process: `auto`, `cpu`, `cuda:0` …"""

    def close(self) -> None:  # noqa: B027 - most workflows hold nothing
        """Free what the workflow holds. Called once, at the end."""

    def beat(self) -> None:
        """Say that work goes on: call it at every step of planning and every frame."""
        self._beat()

    _beat: Callable[[], None] = staticmethod(_no_beat)

    # --- planning and rendering in one go ---

    def generate_seq_with_obs(self) -> int:
        """Plan and look in the same pass, where states cannot be set (fluids). Returns frames, 0 without a plan."""
        raise NotImplementedError(f"{type(self).__name__} has no generate_seq_with_obs(); plan without `with_render`")

    def plan_with_render(self) -> int:
        """Another name of `generate_seq_with_obs`; a workflow writes one of the two."""
        return self.generate_seq_with_obs()

    # --- plans that cross processes, in memory ---

    def dump_plan_info(self) -> bytes:
        """The plan (and, if need be, the layout) of the episode that was just planned or recovered. Never a pickle."""
        return pack({"sequence": list(self.planned)})

    def dedump_plan_info(self, ser_obj: bytes) -> PlanValue:
        """Read what `dump_plan_info` wrote, for `randomization_from_mem` and `recover_seq_from_mem`."""
        return unpack(ser_obj)

    def randomization_from_mem(self, data: PlanValue) -> bool:
        """Make the layout that was planned in, in a world that was reset; False if that is impossible.

        Here: `randomization()` with the planner's seed.
        """
        return self.randomization()

    def recover_seq_from_mem(self, data: PlanValue) -> list[Any]:
        """The sequence that was planned."""
        sequence: list[Any] = data["sequence"]
        return sequence

    # --- plans that lie on disk ---

    def save_seq(self, save_path: str) -> int:
        """Write the plan alone into the folder `save_path`, after `recover_seq_from_mem`. Returns frames."""
        Path(save_path, PLAN_FILE).write_bytes(self.dump_plan_info())
        return len(self.planned)

    def recover_seq(self, seq_path: str) -> list[Any]:
        """The sequence in what `save_seq` wrote; seq_path: its folder or file."""
        path = Path(seq_path)
        content = (path / PLAN_FILE if path.is_dir() else path).read_bytes()
        return self.recover_seq_from_mem(self.dedump_plan_info(content))

    # --- in nimbusd's own types, so that any of its writers can store the episode ---

    def describe_scene(self) -> Scene | None:
        """The world as it is after `randomization`, if others than this workflow are to look at it."""
        return None

    def describe_layout(self) -> Mapping[str, Any]:
        """The choices of `randomization`, as JSON values, for the episode's metadata."""
        return {}

    def describe_seq(self, sequence: list[Any]) -> Sequence:
        """The part of a planned sequence that is stored: instruction, columns, cameras, poses.

        Here: `get_task_name` as instruction, no cameras, and, where the states are mappings, their numbers as columns:
        keys that start with `action` or `master_actions.` are actions, those with `states.` or `observation.` states.
        """
        from nimbusd.stages.workflow.columns import columns_of

        states, actions = columns_of(sequence)
        return Sequence(self.fps, self.get_task_name(), (), {}, {}, states, actions)

    def describe_recovered(self, recorded: Sequence) -> Sequence:
        """The part of an earlier recorded plan that is stored, as it is in the current layout.

        recorded: what `describe_seq` returned then. Here: the same, for layouts whose cameras stand where they stood.
        """
        return recorded

    def observe(self) -> Observation | None:
        """The frames of the last replay. None: only `save` knows, and its files are stored as they are."""
        return None


NimbusWorkFlow = Workflow
"""The base class by the name that it has in the open-source engine, so that a moved workflow changes one import."""

register = Workflow.register
