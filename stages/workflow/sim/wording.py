"""What a task's templates say about one layout: skills and goals bound to objects, and sentences in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nimbusd.stages.errors import ComponentError
from nimbusd.stages.workflow.sim.layout import ObjectLayout, RegionLayout, RelationLayout, SkillCall
from nimbusd.stages.workflow.sim.relations import WORDS
from nimbusd.stages.workflow.sim.task import ManipTask

SKILL_SENTENCES = {
    "pick": "pick up the {object}",
    "place": "put the {object} {relation} the {reference}",
    "push": "push the {object}",
    "goto_pose": "move the gripper",
    "gripper": "move the fingers",
    "open": "open the {object}",
    "close": "close the {object}",
    "press": "press the {object}",
    "rotate": "turn the {object}",
    "home": "return to the home posture",
}


def nouns_of(objects: Sequence[ObjectLayout], regions: Sequence[RegionLayout]) -> dict[str, str]:
    """Name → how instructions call it. Equal nouns are told apart by ordinals."""
    nouns = {entry.name: str(entry.definition["noun"]) for entry in objects}
    nouns.update({region.name: region.name.replace("_", " ") for region in regions})
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    for noun in sorted(set(nouns.values())):
        same = [name for name, word in nouns.items() if word == noun]
        if len(same) > 1:
            for ordinal, name in zip(ordinals, same, strict=False):
                nouns[name] = f"{ordinal} {noun}"
    return nouns


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
                template = spec.instruction or SKILL_SENTENCES.get(spec.skill, spec.skill.replace("_", " "))
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
