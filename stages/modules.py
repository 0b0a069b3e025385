"""Modules that components need and that may not be installed: which are missing, and what to type."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata


def missing_modules(names: Iterable[str]) -> list[str]:
    """Those of the top-level modules that cannot be imported here, in their order."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def how_to_install(module: str) -> str:
    """What to do about a missing module, as the end of a sentence: the extra of nimbusd that brings it, if one does."""
    try:
        extras = metadata("nimbusd").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    if module in extras:
        return f"pip install 'nimbusd[{module}]'"
    return "install the package that has it"
