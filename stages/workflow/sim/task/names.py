"""Mistakes in the names of a task: used twice, or meaning something else already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from nimbusd.stages.arguments import Mistake
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.models.objects import LIBRARY
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.numbers import naming
from nimbusd.stages.workflow.sim.task.task import ManipTask

OF_THE_ROOM = ("table", "floor", "wall", "robot")
"""Names of what is always there, in contacts and labels."""


def mistakes_in_names(task: ManipTask) -> Iterator[Mistake]:
    """Every name that is there twice, is reserved, or cannot be a name."""
    yield from _own(("robots",), task.robots, ROBOTS, "a robot")
    yield from _own(("objects",), task.objects, LIBRARY, "an object")
    for key, robot in task.robots.items():
        yield from _unfit(("robots", key, "arms"), robot.arms)
    yield from _unfit(("choices",), task.choices)
    yield from _on_the_table(task)
    yield from _of_cameras(task)


def _own(
    place: tuple[Key, ...], own: Mapping[str, object], library: Mapping[str, object], kind: str
) -> Iterator[Mistake]:
    yield from _unfit(place, own)
    for name in own:
        if name in library:
            yield Mistake((*place, name), f"the library has {kind} called '{name}'; give yours another name")


def _unfit(place: tuple[Key, ...], names: Iterable[str]) -> Iterator[Mistake]:
    for name in names:
        try:
            naming(name)
        except ValueError as error:
            yield Mistake((*place, name), str(error))


def _on_the_table(task: ManipTask) -> Iterator[Mistake]:
    """Slots, their objects, regions and choices share one space of names: skills and words speak of them alike."""
    named: list[tuple[tuple[Key, ...], list[str]]] = []
    for index, slot in enumerate(task.slots):
        named.append((("slots", index, "name"), list(dict.fromkeys([slot.name, *slot.object_names()]))))
    named += [(("regions", index, "name"), [region.name]) for index, region in enumerate(task.regions)]
    named += [(("choices", name), [name]) for name in task.choices]
    placeholders = (
        {"item"} if any([goal.for_each for goal in task.goals] + [call.for_each for call in task.skills]) else set()
    )
    placeholders |= {"bin"} if task.sort is not None else set()
    taken: set[str] = set()
    for place, names in named:
        if twice := next((name for name in names if name in taken), None):
            yield Mistake(place, f"two things are called '{twice}'; give one another name")
        elif names[0] in OF_THE_ROOM:
            yield Mistake(place, f"'{names[0]}' is what the room's own is called; give it another name")
        elif names[0] in placeholders:
            yield Mistake(place, f"'${names[0]}' stands for something else here; give it another name")
        taken.update(names)


def _of_cameras(task: ManipTask) -> Iterator[Mistake]:
    """A camera with mount `*` is one on every arm, `<name>_<arm>`."""
    arms = list(task.robot_model().arms)
    spread = [list(camera.mounts(arms)) for camera in task.cameras]
    counts = Counter(name for names in spread for name in names)
    repeated: set[str] = set()
    for index, names in enumerate(spread):
        twice = next((name for name in names if counts[name] > 1), None)
        if twice is not None and twice in repeated:
            yield Mistake(("cameras", index, "name"), f"two cameras are called '{twice}'; give one another name")
        repeated.update(names)
