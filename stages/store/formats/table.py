"""The table of formats: a name, and the one value of `DatasetFormat` that it stands for.

Packages beside add formats of their own by an entry point of the group `nimbusd.formats` (see docs/extend/format.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.errors import ComponentError

if TYPE_CHECKING:
    from nimbusd.stages.store.formats.base import DatasetFormat

FORMATS: Mapping[str, str] = {
    "lerobot-v3.0": "nimbusd.stages.store.formats.lerobot_v30:LEROBOT_V30",
    "lerobot-v2.1": "nimbusd.stages.store.formats.lerobot_v21:LEROBOT_V21",
    "interndata-n1": "nimbusd.stages.store.formats.n1:INTERNDATA_N1",
    "interndata-a1-v3.0": "nimbusd.stages.store.formats.a1:INTERNDATA_A1_V30",
    "interndata-a1-v2.1": "nimbusd.stages.store.formats.a1:INTERNDATA_A1_V21",
    "interndata-m1-v3.0": "nimbusd.stages.store.formats.m1:INTERNDATA_M1_V30",
    "interndata-m1-v2.1": "nimbusd.stages.store.formats.m1:INTERNDATA_M1_V21",
}
"""The formats that come with nimbusd, in the order in which a dataset is tried to be opened."""
DEFAULT_FORMAT = "lerobot-v3.0"
GROUP = "nimbusd.formats"


def format_names() -> list[str]:
    """Names of all formats: first those that come with nimbusd, then those of other packages, sorted."""
    return [*FORMATS, *plugged_in()]


@cache
def format_named(name: str) -> DatasetFormat[Any, Any]:
    """The format called `name`. Raises ComponentError that says which there are, or why it cannot be imported."""
    from nimbusd.stages.store.formats.base import DatasetFormat

    if name in FORMATS:
        module, _, value = FORMATS[name].partition(":")
        found: object = getattr(import_module(module), value)
    elif name in plugged_in():
        point = plugged_in()[name]
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise ComponentError(f"format '{name}' ({point.value}) cannot be imported: {error}") from error
    else:
        raise ComponentError(f"no format is called '{name}'; {did_you_mean(name, format_names())}")
    if not isinstance(found, DatasetFormat) or found.name != name:
        raise ComponentError(f"format '{name}' is {found!r}, not a DatasetFormat of that name")
    return found


def every_format() -> Iterator[DatasetFormat[Any, Any]]:
    """All formats, in the order of their names here. Raises ComponentError for one that cannot be imported."""
    return map(format_named, format_names())


@cache
def plugged_in() -> Mapping[str, EntryPoint]:
    """Name → entry point of the formats of other packages, sorted by name."""
    points = {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}
    return {name: point for name, point in points.items() if name not in FORMATS}
