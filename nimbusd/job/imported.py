"""Configurations of the open-source engine (`load_stage`, `plan_stage` … `stage_pipe`) as job files.

What has a counterpart is carried over, and of everything else a remark says what became of it, with its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nimbusd.job.engine_config import EngineConfig, is_filled
from nimbusd.job.problems import JobError, Problem
from nimbusd.job.source import as_mapping, read_source
from nimbusd.stages.plain import Key
from nimbusd.stages.yaml_text import YamlError, read_yaml_file, write_yaml

_LOADER = ("load_stage", "scene_loader")
_RANDOMIZER = ("load_stage", "layout_random_generator")
_PLANNER = ("plan_stage", "seq_planner")
_WRITER = ("store_stage", "writer", "args")
_READER = "env_reader"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_RATIO = re.compile(r"\s*\d+(\.\d+)?\s*/\s*\d+(\.\d+)?\s*")

_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "load_stage": {"scene_loader": ("env_loader",), "layout_random_generator": ("env_randomizer",)},
    "plan_stage": {"seq_planner": ("env_planner", _READER)},
    "plan_with_render_stage": {"plan_with_render": ("plan_with_render", "env_plan_with_render")},
    "dump_stage": {"dumper": ("env", "env_dumper")},
    "dedump_stage": {
        "dedumper": ("de", "dedumper"),
        "scene_loader": ("env_loader",),
        "layout_random_generator": ("env_randomizer",),
        "seq_planner": (_READER,),
    },
    "render_stage": {"renderer": ("env_renderer",)},
    "store_stage": {"writer": ("env_writer",)},
}
"""Stage → its parts → the types that a part may have."""

_WRITER_REMARKS = {
    "batch_async": "is left out: storing always goes on beside the next episode's rendering",
    "batch_size": "is left out: every episode is stored and committed by itself",
    "async_threshold": "is left out: how many episodes wait to be stored is always bounded",
    "seq_output_dir": "is left out: plans lie in the dataset, in files/episode_000000 …",
    "obs_output_dir": "is left out: all that belongs to an episode lies in one dataset",
}
_PIPE_REMARKS = {
    "stage_num": "is left out: where the stages are cut follows from the pipeline itself",
    "stage_dev": "is left out: the node's slots say which device a process has",
    "worker_schedule": "is left out: processes always change sides by what is measured",
    "safe_threshold": "is left out: the backlog between planning and rendering is always bounded",
    "monitor_check_interval": "is left out: processes are watched all the time",
}


@dataclass(frozen=True)
class Imported:
    """A job file's values, in its order, and what is to be said about them. remarks: by line of the configuration."""

    job: dict[str, Any]
    remarks: tuple[Problem, ...]

    def text(self) -> str:
        """The job file, with the remarks as comments at its top."""
        comments = "".join(f"# {remark}\n" for remark in self.remarks)
        return comments + write_yaml(self.job)


def import_config(path: Path, *, root: Path, job_folder: Path) -> Imported:
    """The configuration at `path` as a job file that is going to lie in `job_folder`.

    root: where the configuration's relative paths start (the engine's own folder). Raises JobError for a file that is
    no such configuration.
    """
    source = read_source(path)
    written = source.value.get("name", path.stem)
    name = (_UNFIT.sub("_", str(written)).strip("._-") or "imported")[:100]
    config = EngineConfig(source, name)
    if "name" in config and config.take("name") != name:
        config.remark(("name",), f"the job is called '{name}': letters, digits, '.', '_' and '-' are allowed")
    return _Import(config, name, root, job_folder).made()


class _Import:
    def __init__(self, config: EngineConfig, name: str, root: Path, job_folder: Path) -> None:
        self._config = config
        self._name = name
        self._root = root
        self._job_folder = job_folder
        self._with_render = "plan_with_render_stage" in config
        self._randomized = bool(config.mapping(*_RANDOMIZER))

    def made(self) -> Imported:
        loader = self._config.mapping(*_LOADER, "args")
        if self._config.at(*_LOADER, "type") != "env_loader" or not isinstance(loader.get("workflow_type"), str):
            text = "not a configuration that can be imported: load_stage.scene_loader must be an env_loader "
            raise JobError([Problem(self._config.where(_LOADER), text + "with a workflow_type")])
        self._check_parts()
        job: dict[str, Any] = {"name": self._name, "scenes_root": os.path.relpath(self._root, self._job_folder)}
        job |= self._output()
        job["scenes"] = self._scenes()
        job |= self._amounts()
        if self._with_render:
            job["mode"] = "fused"
        job["pipeline"] = self._pipeline(loader)
        job |= self._pipe()
        return Imported(job, self._config.remarks())

    # --- parts of a job file ---

    def _output(self) -> dict[str, Any]:
        for key in ("output_dir", "seq_output_dir"):
            written = self._config.at(*_WRITER, key)
            if isinstance(written, str) and is_filled(written):
                self._config.take(*_WRITER, key)
                return {"output": written.rstrip("/")}
        return {}

    def _scenes(self) -> list[dict[str, Any]]:
        """One scene per task of the task file, as far as it can be looked into; one per recorded plan, if any."""
        place = (*_LOADER, "args", "cfg_path")
        cfg_path = self._config.take(*place)
        if not isinstance(cfg_path, str) or not cfg_path:
            self._config.remark(place, "cfg_path is missing; give each scene its task file")
            cfg_path, count = "", 1
        else:
            count, why = _tasks_in(self._root / cfg_path)
            if why:
                self._config.remark(place, f"{why}, so only its first task is a scene; add the others")
        stem = _UNFIT.sub("_", Path(cfg_path).stem) or self._name
        names = [stem] if count == 1 else [f"{stem}_{task:03d}" for task in range(count)]
        scenes = [{"name": scene, "cfg_path": cfg_path, "task": task} for task, scene in enumerate(names)]
        recorded = self._recorded()
        if not recorded:
            return scenes
        return [
            {**scene, "name": f"{scene['name']}_plan_{number:03d}", **paths}
            for scene in scenes
            for number, paths in enumerate(recorded)
        ]

    def _recorded(self) -> list[dict[str, str]]:
        """For each recorded plan in `input_dir` the keys that a scene has for it."""
        place = (*_RANDOMIZER, "args", "input_dir")
        written = self._config.take(*place)
        read = self._config.at(*_PLANNER, "type") == _READER
        if written is None:
            if read:
                self._config.remark(
                    _PLANNER, "recorded plans are read where a scene has a `seq_path`; give each its own"
                )
            return []
        folder = self._root / str(written)
        plans = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if not plans:
            self._config.remark(
                place,
                f"{folder} has no recorded plans: give each scene the `layout_path` and `seq_path` of one, or `plans`, "
                "the output of a job that nimbusd made",
            )
            return []
        self._config.remark(place, f"each of its {len(plans)} files is a scene of its own")
        paths = [str(Path(str(written)) / plan) for plan in plans]
        return [{"layout_path": path, **({"seq_path": path} if read else {})} for path in paths]

    def _amounts(self) -> dict[str, Any]:
        repeat = self._count((*_LOADER, "args", "task_repeat"))
        amounts: dict[str, Any] = {}
        if self._randomized:
            number = self._count((*_RANDOMIZER, "args", "random_num"))
            strict = self._config.take(*_RANDOMIZER, "args", "strict_mode")
            amounts = {"episodes_per_scene": number * repeat, "exact": strict is True, "randomize_every": 1}
        elif repeat > 1:
            amounts = {"episodes_per_scene": repeat}
        if repeat > 1:
            self._config.remark(
                (*_LOADER, "args", "task_repeat"),
                f"'task_repeat' times the number of layouts are {amounts['episodes_per_scene']} episodes of each scene",
            )
        return amounts

    def _count(self, place: tuple[str, ...]) -> int:
        """The number that stands there; 1 where none does, or -1, which means once."""
        value = self._config.take(*place)
        if value is None or value == -1:
            return 1
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self._config.remark(place, f"'{place[-1]}: {value}' is no number of times; 1 is taken")
        return 1

    def _pipeline(self, loader: Mapping[str, Any]) -> dict[str, Any]:
        pipeline: dict[str, Any] = {"load": _stage("EnvLoader", self._loader_args(loader))}
        if self._randomized:
            pipeline["randomize"] = _stage("EnvRandomizer", {})
        pipeline["plan"] = _stage("EnvPlanner", {"with_render": True} if self._with_render else {})
        if not self._with_render and "plan_stage" not in self._config:
            self._config.remark(
                (), "there is no plan_stage here, but every job plans: the workflow's generate_seq() is run"
            )
        shown = self._with_render or "render_stage" in self._config
        if not shown and "dump_stage" in self._config:
            self._config.remark(
                ("dump_stage", "dumper", "type"), "plans are stored, not handed on: this configuration renders nothing"
            )
        pipeline["render"] = _stage("EnvRenderer", {} if shown else {"render": False})
        pipeline["store"] = _stage("EnvWriter", {})
        self._say(_WRITER, _WRITER_REMARKS)
        return pipeline

    def _loader_args(self, loader: Mapping[str, Any]) -> dict[str, Any]:
        place = (*_LOADER, "args")
        workflow_type = self._config.take(*place, "workflow_type")
        args: dict[str, Any] = {"workflow_type": workflow_type}
        self._config.remark(
            (*place, "workflow_type"),
            f"'{workflow_type}' must be installed here: by an entry point of the group nimbusd.workflows, or "
            "named package.module:Class",
        )
        if isinstance(loader.get("simulator"), Mapping):
            self._config.take(*place, "simulator")
            if simulator := {key: _number(value) for key, value in loader["simulator"].items()}:
                args["simulator"] = simulator
        if "need_preload" in loader:
            self._config.remark(
                (*place, "need_preload"),
                "'need_preload' is left out: assets are loaded when a task begins and kept while it lasts",
            )
        others = {}
        for key in loader:
            if key in ("workflow_type", "cfg_path", "simulator", "task_repeat", "need_preload"):
                continue
            others[str(key)] = loader[key]
            self._config.remark((*place, key), f"'{key}' is handed to the workflow, in workflow_args")
        if others:
            args["workflow_args"] = others
        self._compare_render_loader(loader)
        return args

    def _compare_render_loader(self, loader: Mapping[str, Any]) -> None:
        """Both processes load by `load_stage`: say where the rendering one was configured differently."""
        place = ("dedump_stage", "scene_loader", "args")
        other = self._config.mapping(*place)
        ours = as_mapping(loader.get("simulator"))
        for key, value in as_mapping(other.get("simulator")).items():
            if key in ours and ours[key] == value:
                self._config.take(*place, "simulator", key)
                continue
            text = f"'{key}: {value}' is left out: the rendering process loads with load_stage's simulator settings"
            self._config.remark((*place, "simulator", key), text)
        for key in other:
            if key == "simulator" and isinstance(other[key], Mapping):
                continue
            if key in loader and other[key] == loader[key]:
                self._config.take(*place, key)
            else:
                self._config.remark(
                    (*place, key), f"'{key}' differs from load_stage's, which the rendering process uses"
                )

    def _pipe(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        cut = self._config.at("stage_pipe", "stage_num")
        if not self._with_render and ((isinstance(cut, list) and len(cut) > 1) or "dump_stage" in self._config):
            result["mode"] = "decoupled"
            place = ("stage_pipe", "stage_num") if cut else ("dump_stage", "dumper", "type")
            text = (
                "becomes `mode: decoupled`: some processes plan, others render; with `mode: auto` measurements decide"
            )
            self._config.remark(place, f"'{place[-1] if cut else place[0]}' {text}")
        self._say(("stage_pipe",), _PIPE_REMARKS)
        numbers = self._config.at("stage_pipe", "worker_num")
        each = numbers if isinstance(numbers, list) else [numbers]
        if all(isinstance(number, int) and not isinstance(number, bool) for number in each) and sum(each) > 0:
            result["workers"] = sum(each)
            self._config.remark(
                ("stage_pipe", "worker_num"),
                f"'worker_num: {numbers}' becomes {sum(each)} processes that plan or render by what is measured",
            )
        place = ("stage_pipe", "status_timeouts")
        timeouts = self._config.mapping(*place)
        running = timeouts.get("running")
        if isinstance(running, (int, float)) and not isinstance(running, bool):
            self._config.take(*place, "running")
            if running > 0:
                result["limits"] = {"episode_timeout_s": running}
        for key in ("idle", "ready"):
            if key in timeouts:
                text = f"'{key}' is left out: a process that does not beat is killed whatever it waits for"
                self._config.remark((*place, key), text)
        return result

    # --- what there is to say ---

    def _check_parts(self) -> None:
        """Tick off the types of all parts; remark on types other than the expected ones."""
        for stage, parts in _PARTS.items():
            for part, kinds in parts.items():
                if part not in self._config.mapping(stage):
                    continue
                kind = self._config.take(stage, part, "type")
                if not self._config.at(stage, part, "args"):
                    self._config.take(stage, part, "args")
                if kind not in kinds:
                    place = (stage, part, "type")
                    self._config.remark(place, f"type '{kind}' is taken for '{kinds[0]}': check that it is one")

    def _say(self, place: tuple[Key, ...], remarks: Mapping[str, str]) -> None:
        """Remarks about the keys at `place` that were not taken."""
        for key, text in remarks.items():
            if key in self._config.mapping(*place) and not self._config.is_used(*place, key):
                self._config.remark((*place, key), f"'{key}' {text}")


def _stage(component: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"component": component, "args": args} if args else {"component": component}


def _number(value: Any) -> Any:
    """`1/30` as the number that it means."""
    if isinstance(value, str) and _RATIO.fullmatch(value):
        above, below = (Fraction(part.strip()) for part in value.split("/"))
        return float(above / below) if below else value
    return value


def _tasks_in(path: Path) -> tuple[int, str]:
    """Count the tasks of a task file (a list, or one under `tasks`); 1 and the reason where that cannot be done."""
    try:
        content = read_yaml_file(path).value
    except OSError as error:
        return 1, f"{path} cannot be read ({error.strerror})"
    except YamlError as error:
        return 1, f"{path} is not valid YAML ({error})"
    tasks = content if isinstance(content, list) else as_mapping(content).get("tasks")
    if not isinstance(tasks, list) or not tasks:
        return 1, f"{path} has no list of tasks"
    return len(tasks), ""
