"""`Simulator`: the physics under the skills. It moves a world on, step by step, and tells what touches.

Whichever runs, everything that it takes and gives is in the layout of the world's MuJoCo model: qpos (nq,), qvel (nv,),
set points of the servos (nu,), ids of bodies and geoms. Planning, collision checks, recordings and rendering know that
model alone.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

from nimbusd.stages.types import F64, I32, BoolArray
from nimbusd.stages.workflow.sim.world.world import World


@dataclass(frozen=True)
class Contacts:
    """Pairs of shapes that touch or nearly do. geoms: (n, 2) ids. touching: (n,) True where they do.

    firm: (n,) True where they are pressed together as no motion that planning let through presses them.
    """

    geoms: I32
    touching: BoolArray
    firm: BoolArray


class Simulator(Protocol):
    """One world's physics, for one episode at a time. The same calls give the same bits, in any process.

    name, version: of the program, for the record.
    """

    name: str
    version: str

    def reset(self, qpos: F64, qvel: F64, targets: F64) -> None:
        """Start anew from a state: (nq,) positions, (nv,) velocities, (nu,) set points of the servos."""

    def step(self, targets: F64) -> None:
        """One step of the layout's `physics.timestep_s` with (nu,) set points. Gravity does not pull at robots."""

    @property
    def qpos(self) -> F64:
        """(nq,) positions now, a copy."""

    @property
    def qvel(self) -> F64:
        """(nv,) velocities now, a copy: of free bodies linear in the world, angular in the body's frame."""

    def body_pose(self, body: int) -> F64:
        """(4, 4) `T_world_body`."""

    def contacts(self) -> Contacts:
        """The contacts of now."""

    def force_n(self, contact: int) -> float:
        """Normal force of a contact, by its position in `contacts()`."""

    def get_state(self) -> Any:
        """The whole state; only for `set_state` of the same simulator and world."""

    def set_state(self, state: Any) -> None:
        """Go back to a state. What follows depends on it and on the steps from there alone."""

    def diverged(self) -> bool:
        """True where the state is no longer to be believed."""


SIMULATORS = {
    "mujoco": ("nimbusd.stages.workflow.sim.world.mujoco_simulator", "MujocoSimulator"),
    "sapien": ("nimbusd.stages.workflow.sim.world.sapien_simulator", "SapienSimulator"),
}
"""Key of `physics.simulator` → module and class."""


def open_simulator(world: World) -> Simulator:
    """The simulator that the layout names, at the world's start and with its servos there.

    Raises BackendUnavailable where it is not installed, AssetError for a world that it cannot simulate.
    """
    module, name = SIMULATORS[world.layout.physics.simulator]
    simulator: Simulator = getattr(importlib.import_module(module), name)(world)
    return simulator
