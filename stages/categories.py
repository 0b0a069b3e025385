"""Semantic ids: the same category has the same id in every scene, job and release."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from nimbusd.stages.types import U16, Label, SceneObject

# Ids are positions here plus one; append only, never reorder: datasets on disk rely on them.
CATEGORIES = (
    "wall", "floor", "ceiling", "door", "window", "baseboard", "stairs", "column",
    "bed", "nightstand", "wardrobe", "dresser", "desk", "chair", "armchair", "sofa",
    "coffee_table", "dining_table", "tv", "tv_stand", "bookshelf", "cabinet", "kitchen_counter", "sink",
    "stove", "refrigerator", "bathtub", "toilet", "washbasin", "mirror", "lamp", "ceiling_lamp",
    "plant", "rug", "picture", "curtain", "pillow", "stool", "bench", "shelf",
    "table", "box", "book", "cup", "washing_machine", "shower", "radiator", "object",
)  # fmt: skip

_IDS = {name: number for number, name in enumerate(CATEGORIES, start=1)}
_FIRST_FREE = 1000
_LAST_ID = 65535


def semantic_ids(categories: Iterable[str]) -> dict[str, int]:
    """Category → uint16 id. Known names have fixed ids; others a stable hash from 1000 up.

    Two unknown names of one scene whose hashes meet are told apart by probing in sorted order.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(set(categories)):
        number = _IDS.get(name)
        if number is None:
            span = _LAST_ID - _FIRST_FREE + 1
            number = _FIRST_FREE + zlib.crc32(name.encode()) % span
            while number in taken:
                number = _FIRST_FREE + (number + 1 - _FIRST_FREE) % span
        taken.add(number)
        ids[name] = number
    return ids


def label_table(objects: Iterable[SceneObject]) -> tuple[Label, ...]:
    """The segmentation table of a scene's objects, ordered by instance id: a row for each instance, whatever its parts.

    Raises ValueError where one id stands for two instances, or for two categories.
    """
    instances: dict[int, tuple[str, str]] = {}
    for obj in objects:
        mine = (obj.instance_name, obj.category)
        if (known := instances.setdefault(obj.instance_id, mine)) != mine:
            raise ValueError(
                f"objects of instance id {obj.instance_id} are {known[0]!r} ({known[1]}) and {mine[0]!r} ({mine[1]}): "
                "give each instance an id of its own, or say by `part_of` which instance they are parts of"
            )
    ids = semantic_ids(category for _, category in instances.values())
    return tuple(Label(number, ids[category], name, category) for number, (name, category) in sorted(instances.items()))


def semantic_table(labels: Iterable[Label]) -> U16:
    """(65536,) uint16: instance id → semantic id, 0 where there is no label."""
    table = np.zeros(65536, np.uint16)
    for label in labels:
        table[label.instance_id] = label.semantic_id
    return table
