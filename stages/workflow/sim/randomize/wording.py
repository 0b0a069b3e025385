"""A task's templates filled in for one layout: skills and goals bound to objects, and sentences in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nimbusd.stages.errors import ComponentError
from nimbusd.stages.workflow.sim.layout.layout import ObjectLayout, RegionLayout, RelationLayout, SkillCall
from nimbusd.stages.workflow.sim.skills import SKILLS
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.workcell.relations import WORDS

_SEEN_APART_M = 0.03
"""Distance between the middles of things at which a person sees which is farther left."""

_ORDINALS = ("", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True)
class _Order:
    """Words for places in a row. first, last: of two. least, most: of several. side: from which they are counted."""

    first: str
    last: str
    least: str
    most: str
    side: str

    def of(self, noun: str, number: int, count: int) -> str:
        """The thing at place `number` (from 0) of `count`."""
        if number == 0:
            return f"{self.first if count == 2 else self.least} {noun}"
        if number == count - 1:
            return f"{self.last if count == 2 else self.most} {noun}"
        if count == 3:
            return f"middle {noun}"
        if number < len(_ORDINALS):
            return f"{_ORDINALS[number]} {noun} from {self.side}"
        return f"{noun} number {number + 1} from {self.side}"


_ACROSS = _Order("left", "right", "leftmost", "rightmost", "the left")
_AWAY = _Order("nearer", "farther", "nearest", "farthest", "the front")


def nouns_of(objects: Sequence[ObjectLayout], regions: Sequence[RegionLayout]) -> dict[str, str]:
    """Name → how instructions call it. Equal nouns are told apart by where things stand, as the robot sees them."""
    nouns = {entry.name: entry.definition.noun for entry in objects}
    nouns.update({region.name: region.name.replace("_", " ") for region in regions})
    places = {entry.name: entry.pose.position[:2] for entry in objects}
    places.update({region.name: region.pose.position[:2] for region in regions})
    for noun in sorted(set(nouns.values())):
        same = [name for name, word in nouns.items() if word == noun]
        if len(same) > 1:
            nouns |= _told_apart(noun, {name: places[name] for name in same})
    return nouns


def _told_apart(noun: str, places: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Words for things of one noun by their order from left (+y) to right, or from near (small x) to far.

    The way across is taken where it shows which is which; else that in which the nearest two are farther apart.
    """
    across = sorted(places, key=lambda name: (-places[name][1], name))
    away = sorted(places, key=lambda name: (places[name][0], name))
    gap_across = min(places[a][1] - places[b][1] for a, b in pairwise(across))
    gap_away = min(places[b][0] - places[a][0] for a, b in pairwise(away))
    sideways = gap_across >= min(_SEEN_APART_M, gap_away)
    order, words = (across, _ACROSS) if sideways else (away, _AWAY)
    return {name: words.of(noun, number, len(order)) for number, name in enumerate(order)}


def bind_goals(
    task: ManipTask, objects: Sequence[ObjectLayout], chosen: Mapping[str, str]
) -> tuple[RelationLayout, ...]:
    """The goals of this layout."""
    goals = []
    for spec in task.goals:
        for bound in _bindings(task, spec.for_each, objects, chosen):
            words = (_bound(word, bound) for word in (spec.subject, spec.relation, spec.reference))
            goals.append(RelationLayout(*words))
    return tuple(goals)


def bind_skills(
    task: ManipTask, objects: Sequence[ObjectLayout], chosen: Mapping[str, str], nouns: Mapping[str, str]
) -> tuple[SkillCall, ...]:
    """The skill calls of this layout. Entries in a row with the same `for_each` are repeated together."""
    calls: list[SkillCall] = []
    block = 0
    specs = list(task.skills)
    while specs:
        count = 1
        while specs[0].for_each and count < len(specs) and specs[count].for_each == specs[0].for_each:
            count += 1
        group, specs = specs[:count], specs[count:]
        block += bool(group[0].for_each)
        for item, bound in enumerate(_bindings(task, group[0].for_each, objects, chosen)):
            for spec in group:
                arguments = {key: _bound(value, bound) for key, value in spec.with_.items()}
                template = spec.instruction or SKILLS[spec.skill].sentence or spec.skill.replace("_", " ")
                words = {**_worded({**bound, **{k: v for k, v in arguments.items() if isinstance(v, str)}}, nouns)}
                place = (block, item) if spec.for_each else (0, 0)
                calls.append(SkillCall(spec.skill, arguments, _filled(template, words), *place))
    return tuple(calls)


def sentences(
    task: ManipTask, objects: Sequence[ObjectLayout], chosen: Mapping[str, str], nouns: Mapping[str, str],
    rng: np.random.Generator,
) -> tuple[str, ...]:  # fmt: skip
    """The instruction templates in words, in random order: the first is the episode's, the others paraphrase it."""
    words = _worded(next(iter(_bindings(task, "", objects, chosen))), nouns)
    return tuple(_filled(task.instructions[i], words) for i in rng.permutation(len(task.instructions)))


def _bindings(
    task: ManipTask, for_each: str, objects: Sequence[ObjectLayout], chosen: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Placeholder → name, once, or for every object of a slot."""
    plain = {entry.group: entry.name for entry in reversed(objects)}
    plain.update({region.name: region.name for region in task.regions})
    plain.update(chosen)
    if not for_each:
        yield plain
        return
    for entry in objects:
        if entry.group == for_each:
            bound = {**plain, "item": entry.name}
            if task.sort is not None and task.sort.slot == for_each:
                bound["bin"] = next(plain[slot] for slot, models in task.sort.into.items() if entry.model in models)
            yield bound


def _bound(value: Any, bound: Mapping[str, str]) -> Any:
    return bound[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def _worded(bound: Mapping[str, str], nouns: Mapping[str, str]) -> dict[str, str]:
    return {key: nouns.get(value, WORDS.get(value, value)) for key, value in bound.items()}


def _filled(template: str, words: Mapping[str, str]) -> str:
    try:
        return template.format(**words)
    except (KeyError, IndexError) as error:
        raise ComponentError(
            f"instruction {template!r} names {error}, but this task has {', '.join(sorted(words))}"
        ) from error
