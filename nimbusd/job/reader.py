"""From a job file to a `Job`, with everything that is wrong reported at once and by line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from nimbusd.job.job import Job, StageSpec
from nimbusd.job.model import MOST_SCENES, JobFile, unfit_scene
from nimbusd.job.problems import JobError, Problem
from nimbusd.job.requires import required_packages
from nimbusd.job.source import Source, as_mapping, read_source
from nimbusd.stages.arguments import ArgumentsError, Mistake, parsed, shown
from nimbusd.stages.base import SceneConfig
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.plain import Key, unplain
from nimbusd.stages.registry import resolve
from nimbusd.stages.stage_names import STAGES, Stage

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class LoadedJob:
    """A job and where its parts were written. entry_of: scene name → position of its entry in `scenes`."""

    job: Job
    source: Source
    entry_of: Mapping[str, int]

    def where(self, *path: Key) -> str:
        """`job.yaml:LINE` of a path of keys, such as `("pipeline", "plan")`."""
        return self.source.where(path)

    def problem(self, mistake: Mistake) -> Problem:
        """A mistake in `Job.to_dict()` as a problem of the file."""
        match mistake.path:
            case ("scenes", int(position), *rest) if position < len(self.job.scenes):
                keys = [key for key in rest if isinstance(key, str)]
                return Problem(self.where_scene(self.job.scenes[position], *keys), mistake.text)
            case ("stages", *rest):
                return Problem(self.where("pipeline", *rest), _named(mistake.path[1:], mistake.text))
            case path:
                return Problem(self.where(*path), _named(path, mistake.text))

    def where_scene(self, scene: str, *path: Key) -> str:
        """`job.yaml:LINE` of (a key of) the entry that made `scene`."""
        return self.source.where(("scenes", self.entry_of[scene], *path))


def read_job(path: Path, *, output: Path | None = None, overrides: Iterable[str] = ()) -> Job:
    """The job in file `path`. Raises JobError with every problem found, each with its line.

    output: replaces the file's. overrides: `KEY=VALUE` texts, applied before anything is checked.
    """
    return load_job(path, output=output, overrides=overrides).job


def load_job(path: Path, *, output: Path | None = None, overrides: Iterable[str] = ()) -> LoadedJob:
    """Read a job like `read_job`, and keep the place of each value."""
    source = read_source(path, overrides)
    problems = [Problem(source.where(place), _named(place, text)) for place, text in unplain(source.value)]
    if problems:
        raise JobError(sorted(problems, key=_line))

    file = _read_model(JobFile, source.value, (), source, problems)
    stages = _read_stages(source, problems)
    entries, entry_of = _read_scenes(stages.get("load"), source, problems)
    if file is None or problems:
        raise JobError(sorted(problems, key=_line))

    folder = path.resolve().parent
    job = Job(
        name=file.name,
        seed=file.seed,
        output=(output or file.output or Path("out") / file.name).absolute(),
        scenes_root=folder / (file.scenes_root or ""),
        scene_entries=entries,
        episodes_per_scene=file.episodes_per_scene,
        exact=file.exact,
        max_tries_per_episode=file.max_tries_per_episode,
        randomize_every=file.randomize_every,
        workers=file.workers,
        mode=file.mode,
        planners=file.planners,
        writers=file.writers,
        stages=stages,
        limits=file.limits,
    )
    job = replace(job, requires=required_packages(job))
    loaded = LoadedJob(job, source, entry_of)
    try:
        Job.from_dict(job.to_dict())  # as a master takes it
    except ArgumentsError as error:
        raise JobError(loaded.problem(mistake) for mistake in error.mistakes) from error
    return loaded


def _line(problem: Problem) -> int:
    """The line that a problem stands on; problems of overrides come first."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0


def _read_model(
    model: type[M], value: object, path: tuple[Key, ...], source: Source, problems: list[Problem]
) -> M | None:
    """`value` as `model`; None after adding its mistakes to `problems`."""
    made = parsed(model, value)
    if not isinstance(made, list):
        return made
    problems.extend(
        Problem(source.where((*path, *mistake.path)), _named(mistake.path, mistake.text)) for mistake in made
    )
    return None


def _named(path: tuple[Key, ...], text: str) -> str:
    """The sentence with the key it speaks of, unless it names the key itself."""
    words = [str(key) for key in path]
    return text if not words or f"'{words[-1]}'" in text else f"{'.'.join(words)}: {text}"


def _read_stages(source: Source, problems: list[Problem]) -> dict[Stage, StageSpec]:
    """The stages whose component exists and accepts its arguments; what is wrong is added to `problems`."""
    pipeline = as_mapping(source.value.get("pipeline"))
    stages: dict[Stage, StageSpec] = {}
    for kind in STAGES:
        stage = as_mapping(pipeline.get(kind))
        name, args = stage.get("component"), stage.get("args") or {}
        if not isinstance(name, str) or not name or not isinstance(args, Mapping):
            continue  # the schema reports it, or the stage is left out
        try:
            component = resolve(name, kind)
        except ComponentError as error:
            problems.append(Problem(source.where(("pipeline", kind, "component")), str(error)))
            continue
        checked = _read_model(component.args_model, dict(args), ("pipeline", kind, "args"), source, problems)
        if checked is not None:
            stages[kind] = StageSpec(name, component.version, checked.model_dump(mode="json"))
    return stages


def _read_scenes(
    load: StageSpec | None, source: Source, problems: list[Problem]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Scene name → checked entry, `count` expanded, and scene name → position of its entry in the file."""
    entries: dict[str, dict[str, Any]] = {}
    entry_of: dict[str, int] = {}
    written = source.value.get("scenes")
    if load is None or not isinstance(written, list):
        return entries, entry_of
    model = resolve(load.component, "load").scene_model
    for position, entry in enumerate(written):
        path = ("scenes", position)
        if not isinstance(entry, Mapping):
            continue  # the schema reports it
        for scene in _expand(dict(entry), model, path, source, problems):
            checked = _read_model(model, scene, path, source, problems)
            if checked is None:
                break  # the other scenes of the entry have the same mistakes
            if checked.name in entries:
                first = source.where(("scenes", entry_of[checked.name], "name"))
                text = f"scene '{checked.name}' is there twice, first at {first}; give each its own name"
                problems.append(Problem(source.where((*path, "name")), text))
                break
            if (unfit := unfit_scene(checked.name)) is not None:
                problems.append(Problem(source.where((*path, "name")), unfit))
                break
            if len(entries) >= MOST_SCENES:
                problems.append(Problem(source.where(path), f"more than {MOST_SCENES:,} scenes"))
                return entries, entry_of
            entries[checked.name] = checked.model_dump(mode="json")
            entry_of[checked.name] = position
    return entries, entry_of


def _expand(
    entry: dict[str, Any], model: type[SceneConfig], path: tuple[Key, ...], source: Source, problems: list[Problem]
) -> list[dict[str, Any]]:
    """The scenes of one entry: itself, or `count` of them named `<name>_000`… with seeds that count up."""
    if "count" not in entry or "count" in model.model_fields:
        return [entry]
    count = entry.pop("count")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_SCENES:
        text = f"count must be 1 to {MOST_SCENES}, but it is {shown(count)}"
        problems.append(Problem(source.where((*path, "count")), text))
        return []
    if "seed" not in model.model_fields:
        text = "count makes scenes that differ by 'seed', which scenes of this loader do not have"
        problems.append(Problem(source.where((*path, "count")), text))
        return []
    default = model.model_fields["seed"].default
    first = entry.get("seed", default if isinstance(default, int) else 0)
    if not isinstance(first, int) or isinstance(first, bool) or not isinstance(entry.get("name"), str):
        return [entry]  # the scene model reports it
    return [{**entry, "name": f"{entry['name']}_{number:03d}", "seed": first + number} for number in range(count)]
