"""The installed packages that a job requires: those whose versions decide what its components make.

They are found where the job is read, which is where components are imported anyway; a master and a daemon import none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from nimbusd.job.job import Job
from nimbusd.stages.base import BaseLoader
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.modules import packages_of
from nimbusd.stages.registry import registered, resolve


def required_packages(job: Job) -> tuple[str, ...]:
    """Names of the packages that the job's components, and what they drive, require; sorted."""
    modules = set(_modules(job))
    packages = {package for module in modules for package in packages_of(module)}
    for stage in job.stages.values():
        point = registered().get(stage.component)
        if point is not None and point.dist is not None:
            packages.add(point.dist.name)
    return tuple(sorted(packages))


def _modules(job: Job) -> Iterator[str]:
    for kind, stage in job.stages.items():
        component = resolve(stage.component, kind)
        yield component.__module__
        yield from (*component.requires, *component.may_use)
        with contextlib.suppress(NimbusError):  # the check of the job tells why it cannot be made
            made = job.make(kind)
            yield from made.modules()
            if isinstance(made, BaseLoader):
                yield from _modules_of_scenes(job, made)


def _modules_of_scenes(job: Job, loader: BaseLoader[Any, Any]) -> Iterator[str]:
    yield from loader.scene_modules(job.scene_config(scene) for scene in job.scenes)
