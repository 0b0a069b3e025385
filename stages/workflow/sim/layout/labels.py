"""The names of what a layout's images show: instance ids, semantic ids, names and categories."""

from __future__ import annotations

from nimbusd.stages.categories import semantic_ids
from nimbusd.stages.types import Label
from nimbusd.stages.workflow.sim.layout.layout import Layout

FLOOR_ID, WALL_ID, TABLE_ID, ROBOT_ID = 1, 2, 3, 4
FIRST_OBJECT_ID = 10
"""Instance ids: the room's, then one per arm from ROBOT_ID, then objects and regions."""


def label_rows(layout: Layout) -> tuple[Label, ...]:
    """The segmentation table of a layout, ordered by instance id."""
    named = [(FLOOR_ID, "floor", "floor"), (WALL_ID, "wall", "wall"), (TABLE_ID, "table", "table")]
    named += [(ROBOT_ID + number, f"robot/{name}", "robot") for number, name in enumerate(layout.robot.definition.arms)]
    named += [(entry.instance_id, entry.name, entry.category) for entry in layout.objects]
    named += [(region.instance_id, region.name, "area") for region in layout.regions]
    ids = semantic_ids(category for _, _, category in named)
    return tuple(Label(number, ids[category], name, category) for number, name, category in sorted(named))
