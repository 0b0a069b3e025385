"""Modules that components need and that may not be installed: which are missing, and what to type."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions


def missing_modules(names: Iterable[str]) -> list[str]:
    """Those of the top-level modules that cannot be imported here, in their order."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def how_to_install(module: str) -> str:
    """The way out where a module is missing, to end a sentence: the extra of nimbusd that brings it, if one does."""
    if (extra := _extra_with(module)) is not None:
        return f"pip install 'nimbusd[{extra}]'"
    return "install the package that has it"


def what_is_missing(error: ModuleNotFoundError) -> str:
    """The module that was not found, and what to do about it, as a sentence."""
    module = (error.name or "").partition(".")[0]
    if not module:
        return str(error)
    return f"the Python module '{module}' is not installed here: {how_to_install(module)}"


def packages_of(module: str) -> tuple[str, ...]:
    """Names of the installed packages that have a module's top level, or of the one that would have it."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ()
    return tuple(_packages_by_module().get(top) or (_PACKAGES.get(top, top),))


@cache
def _packages_by_module() -> Mapping[str, list[str]]:
    return packages_distributions()


def _extra_with(module: str) -> str | None:
    """The first extra that brings the package which has this module."""
    try:
        about = metadata("nimbusd")
    except PackageNotFoundError:
        return None
    package = _PACKAGES.get(module, module).replace("_", "-").lower()
    for requirement in about.get_all("Requires-Dist") or []:
        found = _REQUIREMENT.match(requirement)
        if found is not None and found["package"].lower() == package:
            return found["extra"]
    return module if module in (about.get_all("Provides-Extra") or []) else None


_REQUIREMENT = re.compile(r"(?P<package>[A-Za-z0-9._-]+)[^;]*;.*extra == ['\"](?P<extra>[^'\"]+)['\"]")
_PACKAGES = {
    "skimage": "scikit-image",
    "pxr": "usd-core",
    "pynvml": "nvidia-ml-py",
    "mathutils": "bpy",
    "curobo": "nvidia-curobo",
}
"""Module → package, where their names differ in more than dashes."""
