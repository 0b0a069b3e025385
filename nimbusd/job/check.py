"""What can be known about a job before it runs: files that are missing, an output that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nimbusd.job.problems import Problem
from nimbusd.job.reader import LoadedJob
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.base import SceneConfig
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.modules import how_to_install, missing_modules


@dataclass(frozen=True, slots=True)
class Findings:
    """errors: the job cannot run as it stands. warnings: it can, but not here, or not as one would expect."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_job(loaded: LoadedJob) -> Findings:
    """Look at the files and modules that a job needs, and at its output folder. Nothing is run or written."""
    return Findings(
        errors=(*_missing_assets(loaded), *_unusable_output(loaded)),
        warnings=tuple(_missing_modules(loaded)),
    )


def _missing_assets(loaded: LoadedJob) -> Iterator[Problem]:
    loader = loaded.job.make("load")
    reported: set[Path] = set()
    told: set[str] = set()
    for scene in loaded.job.scenes:
        config = loaded.job.scene_config(scene)
        try:
            paths = loader.asset_paths(config)
        except (NimbusError, OSError) as error:
            texts = [str(error)]
            if isinstance(error, ArgumentsError):
                texts = [f"{error.subject}: {mistake}" for mistake in error.mistakes]
            yield from (Problem(loaded.where_scene(scene), text) for text in texts if text not in told)
            told.update(texts)  # scenes may share a file
            continue
        for path in paths:
            if path not in reported and not path.exists():
                reported.add(path)
                yield Problem(
                    loaded.where_scene(scene, *_key_of(config, path)),
                    f"scene '{scene}': {path} does not exist (relative paths start at {loaded.job.scenes_root})",
                )


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


def _missing_modules(loaded: LoadedJob) -> Iterator[Problem]:
    for kind, spec in loaded.job.stages.items():
        for module in missing_modules(loaded.job.make(kind).needs()):
            yield Problem(
                loaded.where("pipeline", kind, "component"),
                f"component '{spec.component}' needs the Python module '{module}', which is not installed here: "
                f"{how_to_install(module)}",
            )
