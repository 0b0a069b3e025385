"""Checks of a job before it runs: files that are missing, an output that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nimbusd.job.problems import Problem
from nimbusd.job.reader import LoadedJob
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.base import Component, SceneConfig
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.load.mend import warnings_of
from nimbusd.stages.load.mend.recentre import check_near_origin
from nimbusd.stages.modules import how_to_install, missing_modules, what_is_missing


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a check. errors: reasons why the job cannot run. warnings: reasons why it cannot run here, or runs
    otherwise than one would expect.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_job(loaded: LoadedJob, *, deep: bool = False) -> Findings:
    """Look at the files and modules that a job needs, and at its output folder. Nothing is written.

    deep: load every scene, one after another, and add what its loader refuses and what it doubts.
    """
    assets = _assets(loaded)
    known = {error.text for error in assets.errors}
    unfit = [problem for problem in _unfit_machine(loaded) if problem.text not in known]
    errors = [*unfit, *assets.errors, *_unusable_output(loaded), *_refused_sizes(loaded, scenes=not assets.errors)]
    warnings = [*_missing_modules(loaded), *assets.warnings]
    if deep and not errors:
        for problem, is_error in _loaded_scenes(loaded, {warning.text for warning in assets.warnings}):
            (errors if is_error else warnings).append(problem)
    return Findings(tuple(errors), tuple(warnings))


def _assets(loaded: LoadedJob) -> Findings:
    """Problems with the files of each scene; the loader is asked about their contents where all are there."""
    loader = loaded.job.make("load")
    errors: list[Problem] = []
    warnings: list[Problem] = []
    told: set[str] = set()  # scenes may share a file

    def tell(problems: list[Problem], text: str, where: str) -> None:
        if text not in told:
            told.add(text)
            problems.append(Problem(where, text))

    for scene in loaded.job.scenes:
        config, where = loaded.job.scene_config(scene), loaded.where_scene(scene)
        try:
            unusable = {path: what for path in loader.asset_paths(config) if (what := _unusable(path))}
            remarks = [] if unusable else loader.asset_warnings(config)
        except (NimbusError, OSError, ModuleNotFoundError) as error:
            texts = [what_is_missing(error) if isinstance(error, ModuleNotFoundError) else str(error)]
            if isinstance(error, ArgumentsError):
                texts = [f"{error.subject}: {mistake}" for mistake in error.mistakes]
            for text in texts:
                tell(errors, text, where)
            continue
        for path, what in unusable.items():
            if str(path) not in told:
                told.add(str(path))
                text = f"scene '{scene}': {path} {what} (relative paths start at {loaded.job.scenes_root})"
                errors.append(Problem(loaded.where_scene(scene, *_key_of(config, path)), text))
        for text in remarks:
            tell(warnings, text, where)
    return Findings(tuple(errors), tuple(warnings))


def _unusable(path: Path) -> str:
    """The problem with a file before anybody looks into it; empty where there is none."""
    if not path.exists():
        return "does not exist"
    return "" if os.access(path, os.R_OK) else "may not be read by you"


def _key_of(config: SceneConfig, path: Path) -> tuple[str, ...]:
    """The key of the scene's entry that holds `path`, as a path of keys; empty when none does."""
    return next(((name,) for name, value in config if value == path), ())


def _unusable_output(loaded: LoadedJob) -> Iterator[Problem]:
    output = loaded.job.output
    where = loaded.where("output")
    existing = output
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        yield Problem(where, f"output {output}: {existing} is a file, not a folder")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield Problem(where, f"output {output}: {existing} is not writable by you")


def _refused_sizes(loaded: LoadedJob, *, scenes: bool) -> Iterator[Problem]:
    """Images that the writer could not store, where their sizes can be foreseen.

    scenes: ask the loader too, which can answer where its files are in order.
    """
    job = loaded.job
    if "plan" not in job.stages or "store" not in job.stages:
        return
    loader, writer = job.make("load"), job.make("store")
    asked: set[tuple[tuple[str, tuple[int, int]], ...]] = set()
    told: set[str] = set()

    def refused(sizes: dict[str, tuple[int, int]]) -> list[str]:
        """Sentences that are new."""
        key = tuple(sorted(sizes.items()))
        if key in asked:
            return []
        asked.add(key)
        fresh = [text for text in writer.refused_sizes(sizes) if text not in told]
        told.update(fresh)
        return fresh

    yield from (Problem(loaded.where("pipeline", "plan"), text) for text in refused(job.make("plan").image_sizes()))
    for scene in job.scenes if scenes else ():
        sizes = loader.image_sizes(job.scene_config(scene))
        yield from (Problem(loaded.where_scene(scene), text) for text in refused(sizes))


def _loaded_scenes(loaded: LoadedJob, known: set[str]) -> Iterator[tuple[Problem, bool]]:
    """Load every scene: the problems that are not `known` yet; True beside one: the scene cannot be loaded."""
    loader = loaded.job.make("load")
    try:
        for scene in loaded.job.scenes:
            where = loaded.where_scene(scene)
            try:
                made = loader.load_asset(loaded.job.scene_config(scene))
                check_near_origin(made)
            except ModuleNotFoundError as error:
                yield Problem(where, f"scene '{scene}' could not be looked into: {what_is_missing(error)}"), False
            except Exception as error:  # noqa: BLE001 - a loader may raise anything; run would end with it
                text = str(error) if isinstance(error, NimbusError) else f"{type(error).__name__}: {error}"
                yield Problem(where, text if scene in text else f"scene '{scene}': {text}"), True
            else:
                fresh = [text for text in warnings_of(made) if text not in known]
                yield from ((Problem(where, f"scene '{scene}': {text}"), False) for text in fresh)
    finally:
        loader.close()


def _unfit_machine(loaded: LoadedJob) -> Iterator[Problem]:
    """Problems that keep a component from working here, though all that it needs is installed."""
    stages: dict[str, Component[Any]] = {kind: loaded.job.make(kind) for kind in loaded.job.stages}
    if any(missing_modules(component.needs()) for component in stages.values()):
        return
    for kind, component in stages.items():
        for text in component.unfit(stages):
            yield Problem(loaded.where("pipeline", kind, "component"), text)


def _missing_modules(loaded: LoadedJob) -> Iterator[Problem]:
    for kind, spec in loaded.job.stages.items():
        for module in missing_modules(loaded.job.make(kind).needs()):
            yield Problem(
                loaded.where("pipeline", kind, "component"),
                f"component '{spec.component}' needs the Python module '{module}', which is not installed here: "
                f"{how_to_install(module)}",
            )
