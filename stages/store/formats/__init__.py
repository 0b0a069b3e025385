"""Formats of datasets: a folder for each, a table of them, and beside them what several share.

Names are imported when they are asked for: records know the table, and formats know records.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nimbusd.stages.store.formats.base import DatasetFormat
    from nimbusd.stages.store.formats.table import DEFAULT_FORMAT, FORMATS, format_named, format_names

__all__ = ["DEFAULT_FORMAT", "FORMATS", "DatasetFormat", "format_named", "format_names"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'base' if name == 'DatasetFormat' else 'table'}"), name)
