"""Mistakes in a task beyond the shape of its keys: names, models, places and words.

Everything is found without drawing a layout. Each mistake says where it stands, and the nearest right word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from nimbusd.stages.arguments import ArgumentsError, Mistake, did_you_mean, validate
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.models.fixtures import CONTAINERS
from nimbusd.stages.workflow.sim.models.objects import size_fault
from nimbusd.stages.workflow.sim.skills import SKILLS
from nimbusd.stages.workflow.sim.task.camera_check import in_cameras
from nimbusd.stages.workflow.sim.task.names import mistakes_in_names
from nimbusd.stages.workflow.sim.task.task import ManipTask, SkillSpec
from nimbusd.stages.workflow.sim.workcell.relations import JOINT_SHAPES, WORDS
from nimbusd.stages.workflow.sim.workcell.relations import KINDS as RELATIONS

MOST_STEP_S = 0.005


def mistakes_in(task: ManipTask) -> Iterator[Mistake]:
    """Every mistake of a task whose keys and types are right."""
    if task.robot not in task.all_robots():
        yield Mistake(("robot",), f"no robot is called '{task.robot}'; {did_you_mean(task.robot, task.all_robots())}")
        return
    yield from mistakes_in_names(task)
    yield from _in_slots(task)
    yield from _in_places(task)
    yield from in_cameras(task)
    yield from _in_physics(task)
    if task.sort is not None:
        yield from _in_sort(task)
    for index, goal in enumerate(task.goals):
        yield from _in_goal(task, index)
        yield from _in_for_each(task, ("goals", index), goal.for_each)
    for index, call in enumerate(task.skills):
        yield from _in_for_each(task, ("skills", index), call.for_each)
        yield from _in_skill(task, index, call)
    for index, template in enumerate(task.instructions):
        yield from _in_words(("instructions", index), template, _always_there(task))


def _in_slots(task: ManipTask) -> Iterator[Mistake]:
    models = task.all_objects()
    for index, slot in enumerate(task.slots):
        place: tuple[Key, ...] = ("slots", index)
        for key in slot.models:
            if key not in models:
                yield Mistake(
                    (*place, "models"), f"slot '{slot.name}': no object is called '{key}'; {did_you_mean(key, models)}"
                )
                continue
            colors = dict(models[key].colors)
            if slot.color and slot.color not in colors:
                hint = did_you_mean(slot.color, colors) if colors else "it has its own look only"
                yield Mistake((*place, "color"), f"'{key}' does not come in '{slot.color}'; {hint}")
            if slot.joint and not models[key].travel:
                yield Mistake((*place, "joint"), f"'{key}' has no joint; leave 'joint' out")
            if slot.size_m is not None and (fault := size_fault(models[key], slot.size_m)):
                yield Mistake((*place, "size_m"), f"'{key}': {fault}")


def _in_places(task: ManipTask) -> Iterator[Mistake]:
    """Slots and regions must be on the table, wherever in their ranges they are drawn."""
    spread: list[tuple[str, int, Any, tuple[float, float]]] = []
    spread += [("slots", index, slot, (0.0, 0.0)) for index, slot in enumerate(task.slots)]
    spread += [("regions", index, region, region.size_m) for index, region in enumerate(task.regions)]
    for kind, index, spec, size in spread:
        for axis, key in enumerate(("x_m", "y_m")):
            middle, half = task.table.centre[axis], (task.table.size_m[axis] - size[axis]) / 2
            low, high = getattr(spec, key)
            if low < middle - half - 1e-9 or high > middle + half + 1e-9:
                text = f"'{spec.name}' may lie beside the table, on which {key[0]} goes from {middle - half:.4g} to"
                yield Mistake((kind, index, key), f"{text} {middle + half:.4g}")


def _in_physics(task: ManipTask) -> Iterator[Mistake]:
    physics = task.physics
    if physics.timestep_s > MOST_STEP_S:
        needed = math.ceil(1 / (physics.fps * MOST_STEP_S))
        text = f"physics steps of {physics.timestep_s * 1000:.3g} ms are too long for contacts"
        yield Mistake(("physics", "substeps"), f"{text}; at {physics.fps:g} fps take {needed} substeps or more")


def _in_sort(task: ManipTask) -> Iterator[Mistake]:
    sort, slots = task.sort, {slot.name: slot for slot in task.slots}
    assert sort is not None
    if sort.slot not in slots:
        yield Mistake(("sort", "slot"), f"no slot is called '{sort.slot}'; {did_you_mean(sort.slot, slots)}")
        return
    for word in sort.into:
        if word not in slots:
            yield Mistake(("sort", "into", word), f"no slot is called '{word}'; {did_you_mean(word, slots)}")
        elif slots[word].count[0] < 1:
            yield Mistake(("sort", "into", word), f"'{word}' is missing in some layouts; its 'count' must begin at 1")
    missing = set(slots[sort.slot].models) - {key for keys in sort.into.values() for key in keys}
    if missing:
        yield Mistake(("sort", "into"), f"there is no place for {', '.join(sorted(missing))}")


def _in_for_each(task: ManipTask, place: tuple[Key, ...], word: str) -> Iterator[Mistake]:
    slots = [slot.name for slot in task.slots]
    if word and word not in slots:
        yield Mistake((*place, "for_each"), f"no slot is called '{word}'; {did_you_mean(word, slots)}")


def _in_goal(task: ManipTask, index: int) -> Iterator[Mistake]:
    goal, place = task.goals[index], ("goals", index)
    subject = list(_in_name(task, (*place, "subject"), goal.subject, goal.for_each, regions=False))
    yield from subject
    for kind in _values(task, goal.relation):
        if kind.startswith("$"):
            hint = did_you_mean(kind[1:], task.choices)
            yield Mistake((*place, "relation"), f"no choice is called '{kind}'; {hint}")
        elif kind not in RELATIONS:
            yield Mistake((*place, "relation"), f"no relation is called '{kind}'; {did_you_mean(kind, RELATIONS)}")
        elif kind in WORDS and not goal.reference:
            yield Mistake((*place, "reference"), f"'{kind}' is between two things: key 'reference' is missing")
        elif kind in JOINT_SHAPES and not subject:
            for model in _models(task, goal.subject, goal.for_each):
                if task.object_model(model).shape not in JOINT_SHAPES[kind]:
                    shapes = " or a ".join(JOINT_SHAPES[kind])
                    yield Mistake((*place, "relation"), f"'{kind}' is said of a {shapes}, not of '{model}'")
    if goal.reference:
        yield from _in_reference(task, (*place, "reference"), goal.relation, goal.reference, goal.for_each)
        if goal.reference == goal.subject:
            yield Mistake((*place, "reference"), f"'{goal.subject}' cannot stand in a relation to itself")


def _in_skill(task: ManipTask, index: int, call: SkillSpec) -> Iterator[Mistake]:
    kind, place = SKILLS[call.skill], ("skills", index, "with")
    names = [name for name in ("object", "reference") if name in kind.model_fields and name in call.with_]
    wrong: set[Key] = set()
    for key, value in call.with_.items():
        if isinstance(value, str) and (value.startswith("$") or key in names) and value:
            for mistake in _in_name(task, (*place, key), value, call.for_each):
                wrong.add(key)
                yield mistake
    arms = task.robot_model().arms
    if (arm := call.with_.get("arm", "")) not in ("", *arms):
        yield Mistake((*place, "arm"), f"the robot has no arm '{arm}'; {did_you_mean(str(arm), arms)}")
    for count in range(max([1, *(len(values) for values in task.choices.values())])):
        arguments = {key: _nth(task, value, count) for key, value in call.with_.items()}
        try:
            validate(kind, arguments, call.skill)
        except ArgumentsError as error:
            mistakes = [mistake for mistake in error.mistakes if mistake.path[0] not in wrong]
            yield from (Mistake((*place, *mistake.path), mistake.text) for mistake in mistakes)
            break
    if "reference" in names and "relation" in call.with_ and "reference" not in wrong:
        relation, reference = str(call.with_["relation"]), str(call.with_["reference"])
        yield from _in_reference(task, (*place, "reference"), relation, reference, call.for_each)
    if "object" in names and "object" not in wrong:
        yield from _in_object(task, (*place, "object"), call)
    words = {*_always_there(task), *call.with_, *(["item", "bin"] if call.for_each else [])}
    yield from _in_words(("skills", index, "instruction"), call.instruction, words)


def _in_object(task: ManipTask, place: tuple[Key, ...], call: SkillSpec) -> Iterator[Mistake]:
    """Mistakes in the thing that a skill is done to: a region, another kind of object, one that stands still."""
    value = str(call.with_["object"])
    if call.with_.get("reference") == value:
        yield Mistake((*place[:-1], "reference"), f"'{value}' cannot stand in a relation to itself")
    if any(region.name == value.removeprefix("$") for region in task.regions):
        yield Mistake(place, f"'{value}' is a region, to which no skill is done")
    for model in _models(task, value, call.for_each):
        shape, wanted = task.object_model(model).shape, SKILLS[call.skill].done_to
        if wanted and shape not in wanted:
            yield Mistake(place, f"'{call.skill}' is done to a {' or a '.join(wanted)}, not to '{model}'")
    if SKILLS[call.skill].moves:
        for slot in task.slots_of(value, call.for_each):
            first = task.all_objects().get(slot.models[0])
            if slot.fixed or (first is not None and slot.stands_still(first)):
                yield Mistake(place, f"'{call.skill}' moves things, but '{slot.name}' stands still; say 'fixed: false'")


def _in_reference(
    task: ManipTask, place: tuple[Key, ...], relation: str, reference: str, for_each: str
) -> Iterator[Mistake]:
    """Mistakes in the second of two things that stand in a relation."""
    wrong = list(_in_name(task, place, reference, for_each))
    yield from wrong
    if wrong:
        return
    others = [kind for kind in _values(task, relation) if kind != "in" and kind in WORDS]
    if others and any(region.name == reference.removeprefix("$") for region in task.regions):
        yield Mistake(place, f"things lie in a region, they are not {WORDS[others[0]]} it: '{reference}' is one")
    if "in" not in _values(task, relation):
        return
    for model in _models(task, reference, for_each):
        if task.object_model(model).shape not in CONTAINERS:
            shapes = " or a ".join(CONTAINERS)
            yield Mistake(place, f"things lie in a {shapes}, or in a region, not in '{model}'")


def _in_name(
    task: ManipTask, place: tuple[Key, ...], value: str, for_each: str, regions: bool = True
) -> Iterator[Mistake]:
    """The mistake in a word that is no placeholder (`$slot`), and the name of no object or region."""
    places = [region.name for region in task.regions] if regions else []
    fillers = [*(slot.name for slot in task.slots), *places]
    if value.startswith("$"):
        known = [*fillers, *task.choices, *(["item"] if for_each else [])]
        known += ["bin"] if task.sort is not None and task.sort.slot == for_each else []
        if value[1:] not in known:
            yield Mistake(place, f"nothing fills '{value}'; {did_you_mean(value[1:], known)}")
        elif empty := next((slot for slot in task.slots if slot.name == value[1:] and slot.count[0] < 1), None):
            hint = f"'for_each: {empty.name}' is done for as many as there are"
            yield Mistake(place, f"'{value}' is missing in some layouts; {hint}")
        return
    objects = [name for slot in task.slots for name in slot.names_always_there()]
    if value not in (*objects, *places):
        hint = f"did you mean '${value}'?" if value in fillers else did_you_mean(value, [*objects, *places])
        yield Mistake(place, f"no object is called '{value}'; {hint}")


def _in_words(place: tuple[Key, ...], template: str, known: Iterable[str]) -> Iterator[Mistake]:
    known = sorted(known)
    try:
        words = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        yield Mistake(place, f"the braces in {template!r} do not match: {error}")
        return
    for word in words:
        if word not in known:
            yield Mistake(place, f"nothing is called '{{{word}}}' in every layout; {did_you_mean(word, known)}")


def _always_there(task: ManipTask) -> set[str]:
    """Names that instructions can use: slots that are never empty, regions, choices."""
    slots = {slot.name for slot in task.slots if slot.count[0] > 0}
    return slots | {region.name for region in task.regions} | set(task.choices)


def _models(task: ManipTask, value: str, for_each: str) -> list[str]:
    """Models that a name or placeholder may stand for; none for regions, and for what is unknown."""
    found = task.slots_of(value, for_each)
    return sorted({key for slot in found for key in slot.models if key in task.all_objects()})


def _values(task: ManipTask, word: str) -> tuple[str, ...]:
    """The words that a word stands for, which may be a choice."""
    return task.choices.get(word[1:], (word,)) if word.startswith("$") else (word,)


def _nth(task: ManipTask, value: Any, count: int) -> Any:
    if not isinstance(value, str):
        return value
    values = _values(task, value)
    return values[count % len(values)]


def parse_task(config: Mapping[str, Any], folder: Path | None = None) -> ManipTask:
    """A task from what a YAML file holds. folder: where its relative paths start; None is the current folder.

    Raises ArgumentsError with every mistake in sentences.
    """
    subject = f"task '{config.get('name', '?')}'"
    task = validate(ManipTask, config, subject)
    if folder is not None:
        task = task.located(folder)
    if mistakes := list(mistakes_in(task)):
        raise ArgumentsError(subject, mistakes)
    return task
