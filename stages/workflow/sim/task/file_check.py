"""Mistakes in the files that a task names: each is read, and what is made of it is built alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from nimbusd.stages.arguments import Mistake
from nimbusd.stages.errors import AssetError
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.layout.layout import ObjectLayout, Pose, Surface
from nimbusd.stages.workflow.sim.models.assets import PACKAGES, fetched, file_of
from nimbusd.stages.workflow.sim.models.mesh_shape import MESH_SUFFIXES, mesh_shape
from nimbusd.stages.workflow.sim.models.objects import ObjectModel, own_size
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.skills.grasps import read_grasps
from nimbusd.stages.workflow.sim.task.robot_check import mistakes_in_robot
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.world.bodies import add_object


def mistakes_in_files(task: ManipTask) -> Iterator[Mistake]:
    """Files that are missing, of an unknown kind, or from which no robot or object can be made.

    Files of packages that are not fetched here are passed over; without MuJoCo, nothing is built.
    """
    unknown: set[tuple[Key, ...]] = set()
    for path, reference in task.files():
        package, colon, _ = reference.partition(":")
        if colon and package in PACKAGES and not fetched(package):
            unknown.add(path[:2])
            continue
        try:
            found = Path(file_of(reference))
            if path[-1] == "grasps":
                read_grasps(str(found))
            elif path[-1] == "mesh":
                _try_mesh(task.objects[str(path[1])], found)
        except AssetError as error:
            unknown.add(path[:2])
            yield Mistake(path, str(error))
    if find_spec("mujoco") is None:
        return
    for key, robot in task.robots.items():
        if ("robots", key) not in unknown:
            yield from (Mistake(("robots", key, *mistake.path), mistake.text) for mistake in mistakes_in_robot(robot))
    for key, model in task.objects.items():
        if ("objects", key) not in unknown and _can_be_read(model):
            try:
                _build(model)
            except (AssetError, ValueError) as error:
                yield Mistake(("objects", key), f"the object cannot be built: {' '.join(str(error).split())}")


def _try_mesh(model: ObjectModel, found: Path) -> None:
    """Read a mesh as a layout would, where what reads it is installed. Raises AssetError."""
    suffix = found.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        known = ", ".join(MESH_SUFFIXES)
        raise AssetError(f"object file {found} is of a kind that cannot be read; convert it to one of {known}")
    if find_spec("mujoco") is not None and _can_be_read(model):
        mesh_shape(model.mesh, model.unit_m, model.up)


def _can_be_read(model: ObjectModel) -> bool:
    """True where the reader of its kind of mesh is installed."""
    return Path(model.mesh).suffix.lower() not in (".obj", ".ply") or find_spec("mapbox_earcut") is not None


def _build(model: ObjectModel) -> None:
    """Compile an object alone, in its least and its largest size. Raises AssetError, or MuJoCo's ValueError."""
    for size in filter(None, (own_size(model), model.size_max_m)):
        spec = import_mujoco().MjSpec()
        own = not model.colors
        add_object(
            spec,
            ObjectLayout("it", "it", model, model.category, 1, Pose(), size, surface=Surface(own=own)),
        )
        spec.compile()
