"""Mending of every scene that comes from somebody's file, and the record of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from nimbusd.stages.load.mend.coincident import without_coincident, without_copies
from nimbusd.stages.load.mend.doubts import doubts
from nimbusd.stages.load.mend.inward import facing_inward
from nimbusd.stages.types import Scene

WARNINGS = "warnings"
"""Key of a scene's provenance: sentences about what was mended or is doubtful in it."""


def mended(scene: Scene, beat: Callable[[], None] = lambda: None) -> Scene:
    """The scene without surfaces that lie in each other, its floors facing up.

    `warnings_of` tells what was found, and what speaks against its axis and its unit.
    """
    # Turned before surfaces are compared: the underside of a box then faces the floor that it stands on, which is
    # contact and no overlap.
    objects, copies = without_copies(scene.objects)
    objects, turned = facing_inward(objects)
    beat()
    objects, told = without_coincident(objects, beat)
    beat()
    scene = replace(scene, objects=tuple(objects))
    return warned(scene, [*copies, *turned, *told, *doubts(scene)])


def warned(scene: Scene, sentences: Iterable[str]) -> Scene:
    """The scene with these sentences in its provenance, after those that are there."""
    all_of_them = list(dict.fromkeys([*warnings_of(scene), *sentences]))
    return replace(scene, provenance={**scene.provenance, WARNINGS: all_of_them}) if all_of_them else scene


def warnings_of(scene: Scene) -> list[str]:
    """Sentences of loaders about the scene; a loader that uses another one keeps those of that one."""
    return [str(sentence) for sentence in scene.provenance.get(WARNINGS, ())]
