"""Configurations of the open-source engine (`load_stage`, `plan_stage` … `stage_pipe`) as job files.

What has a counterpart is carried over, and of everything else a remark says what became of it, with its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from nimbusd.job.problems import JobError, Problem
from nimbusd.job.source import Source, as_mapping, read_source
from nimbusd.stages.arguments import Key

STAGES = (
    "load_stage",
    "plan_stage",
    "plan_with_render_stage",
    "dump_stage",
    "dedump_stage",
    "render_stage",
    "store_stage",
)
_LOADER = ("load_stage", "scene_loader")
_RANDOMIZER = ("load_stage", "layout_random_generator")
_READER = "env_reader"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_RATIO = re.compile(r"\s*\d+(\.\d+)?\s*/\s*\d+(\.\d+)?\s*")

_WITHOUT_COUNTERPART: Mapping[str, Mapping[str, str]] = {
    "loader": {
        "task_repeat": "is left out: `episodes_per_scene` says how many episodes of a task are made",
        "need_preload": "is left out: assets are loaded when a task begins and kept while it lasts",
    },
    "writer": {
        "batch_async": "is left out: storing always goes on beside the next episode's rendering",
        "batch_size": "is left out: every episode is stored and committed by itself",
        "seq_output_dir": "is left out: plans lie in the dataset, in files/episode_000000 …",
        "obs_output_dir": "is left out: all that belongs to an episode lies in one dataset",
    },
    "pipe": {
        "stage_num": "is left out: where the stages are cut follows from the pipeline itself",
        "stage_dev": "is left out: the node's slots say which device a process has",
        "worker_schedule": "is left out: processes always change sides by what is measured",
        "safe_threshold": "is left out: the backlog between planning and rendering is always bounded",
        "monitor_check_interval": "is left out: processes are watched all the time",
        "status_timeouts": "",
        "worker_num": "",
    },
}


@dataclass(frozen=True)
class Imported:
    """A job file's values, in its order, and what is to be said about them. remarks: by line of the configuration."""

    job: dict[str, Any]
    remarks: tuple[Problem, ...]

    def text(self) -> str:
        """The job file, with the remarks as comments at its top."""
        comments = "".join(f"# {remark}\n" for remark in self.remarks)
        return comments + yaml.safe_dump(self.job, sort_keys=False, allow_unicode=True, width=120)


def import_config(path: Path, *, root: Path, job_folder: Path) -> Imported:
    """The configuration at `path` as a job file that is going to lie in `job_folder`.

    root: where the configuration's relative paths start (the engine's own folder). Raises JobError for a file that is
    no such configuration.
    """
    return _Import(read_source(path), root, job_folder).made()


class _Import:
    def __init__(self, source: Source, root: Path, job_folder: Path) -> None:
        self._source = source
        self._config = source.value
        self._root = root
        self._job_folder = job_folder
        self._remarks: list[Problem] = []

    def made(self) -> Imported:
        loader = self._args(*_LOADER)
        if self._type(*_LOADER) != "env_loader" or "workflow_type" not in loader:
            raise JobError(
                self._source.path,
                [
                    Problem(
                        self._source.where(_LOADER),
                        "not a configuration that can be imported: load_stage.scene_loader must be an env_loader "
                        "with a workflow_type",
                    )
                ],
            )
        name = self._name()
        job: dict[str, Any] = {"name": name, "scenes_root": os.path.relpath(self._root, self._job_folder)}
        job |= self._output(name)
        job["scenes"] = self._scenes(name, loader)
        job |= self._amounts()
        if "plan_with_render_stage" in self._config:
            job["mode"] = "fused"
        job["pipeline"] = self._pipeline(loader)
        job |= self._pipe()
        self._others()
        return Imported(job, tuple(sorted(self._remarks, key=_line)))

    # --- parts of a job file ---

    def _name(self) -> str:
        written = self._config.get("name", self._source.path.stem)
        name = _UNFIT.sub("_", str(written)).strip("._-") or "imported"
        if name != written:
            self._remark(("name",), f"the job is called '{name}': letters, digits, '.', '_' and '-' are allowed")
        return name[:100]

    def _output(self, name: str) -> dict[str, Any]:
        args = self._args("store_stage", "writer")
        written = args.get("output_dir", args.get("seq_output_dir"))
        if not isinstance(written, str):
            return {}
        return {"output": written.replace("${name}", name).rstrip("/")}

    def _scenes(self, name: str, loader: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One scene per task of the task file, as far as it can be looked into."""
        cfg_path = str(loader.get("cfg_path", ""))
        if not cfg_path:
            self._remark((*_LOADER, "args"), "cfg_path is missing; give each scene its task file")
        count, why = _tasks_in(self._root / cfg_path)
        if why:
            self._remark((*_LOADER, "args", "cfg_path"), f"{why}, so only its first task is a scene; add the others")
        stem = _UNFIT.sub("_", Path(cfg_path).stem) or name
        names = [stem] if count == 1 else [f"{stem}_{task:03d}" for task in range(count)]
        return [{"name": scene, "cfg_path": cfg_path, "task": task} for task, scene in enumerate(names)]

    def _amounts(self) -> dict[str, Any]:
        args = dict(self._args(*_RANDOMIZER))
        if _RANDOMIZER[1] not in as_mapping(self._config.get("load_stage")):
            return {}
        number = args.pop("random_num", 1)
        amounts: dict[str, Any] = {"episodes_per_scene": number, "exact": bool(args.pop("strict_mode", False))}
        amounts["randomize_every"] = 1
        if "input_dir" in args:
            args.pop("input_dir")
            self._remark(
                (*_RANDOMIZER, "args", "input_dir"),
                "has no counterpart: give each scene the `layout_path` and `seq_path` of one recorded plan",
            )
        for key in args:
            self._remark((*_RANDOMIZER, "args", key), f"'{key}' is left out: the randomizer knows nothing like it")
        return amounts

    def _pipeline(self, loader: Mapping[str, Any]) -> dict[str, Any]:
        pipeline: dict[str, Any] = {"load": _stage("EnvLoader", self._loader_args(loader))}
        if _RANDOMIZER[1] in as_mapping(self._config.get("load_stage")):
            pipeline["randomize"] = _stage("EnvRandomizer", {})
        with_render = "plan_with_render_stage" in self._config
        pipeline["plan"] = _stage("EnvPlanner", {"with_render": True} if with_render else {})
        if self._type("plan_stage", "seq_planner") == _READER:
            self._remark(
                ("plan_stage", "seq_planner"),
                "recorded plans are read where a scene has a `seq_path`; give each scene its own",
            )
        shown = with_render or "render_stage" in self._config
        if not shown and "dump_stage" in self._config:
            self._remark(("dump_stage",), "plans are stored, not handed on: this configuration renders nothing")
        pipeline["render"] = _stage("EnvRenderer", {} if shown else {"render": False})
        pipeline["store"] = _stage("EnvWriter", {})
        writer = {key: value for key, value in self._args("store_stage", "writer").items() if key != "output_dir"}
        for key in writer:
            text = _WITHOUT_COUNTERPART["writer"].get(key, "is left out: EnvWriter knows nothing like it")
            self._remark(("store_stage", "writer", "args", key), f"'{key}' {text}")
        return pipeline

    def _loader_args(self, loader: Mapping[str, Any]) -> dict[str, Any]:
        args: dict[str, Any] = {"workflow_type": loader["workflow_type"]}
        self._remark(
            (*_LOADER, "args", "workflow_type"),
            f"'{loader['workflow_type']}' must be installed here: by an entry point of the group nimbusd.workflows, or "
            "named package.module:Class",
        )
        simulator = {key: _number(value) for key, value in as_mapping(loader.get("simulator")).items()}
        if simulator:
            args["simulator"] = simulator
        others = {}
        for key, value in loader.items():
            if key in ("workflow_type", "cfg_path", "simulator"):
                continue
            if text := _WITHOUT_COUNTERPART["loader"].get(key):
                self._remark((*_LOADER, "args", key), f"'{key}' {text}")
            else:
                others[key] = value
                self._remark((*_LOADER, "args", key), f"'{key}' is handed to the workflow, in workflow_args")
        if others:
            args["workflow_args"] = others
        self._compare_render_loader(loader)
        return args

    def _compare_render_loader(self, loader: Mapping[str, Any]) -> None:
        """Both processes load by `load_stage`: say where the rendering one was configured differently."""
        place = ("dedump_stage", "scene_loader", "args")
        other = self._args("dedump_stage", "scene_loader")
        ours = as_mapping(loader.get("simulator"))
        for key, value in as_mapping(other.get("simulator")).items():
            if ours.get(key) != value:
                text = f"'{key}: {value}' is left out: the rendering process loads with load_stage's simulator settings"
                self._remark((*place, "simulator", key), text)
        for key in other:
            if key != "simulator" and other[key] != loader.get(key):
                self._remark((*place, key), f"'{key}' differs from load_stage's, which the rendering process uses")

    def _pipe(self) -> dict[str, Any]:
        pipe = as_mapping(self._config.get("stage_pipe"))
        result: dict[str, Any] = {}
        for key in pipe:
            text = _WITHOUT_COUNTERPART["pipe"].get(key, "is left out: there is nothing like it")
            if text:
                self._remark(("stage_pipe", key), f"'{key}' {text}")
        numbers = pipe.get("worker_num")
        if isinstance(numbers, list) and numbers and all(isinstance(number, int) for number in numbers):
            result["workers"] = sum(numbers)
            self._remark(
                ("stage_pipe", "worker_num"),
                f"{numbers} become {sum(numbers)} processes that plan or render by what is measured",
            )
        timeouts = as_mapping(pipe.get("status_timeouts"))
        running = timeouts.get("running", -1)
        if isinstance(running, (int, float)) and running > 0:
            result["limits"] = {"episode_timeout_s": running}
        for key in timeouts:
            if key != "running":
                text = "is left out: a process that does not beat is killed whatever it waits for"
                self._remark(("stage_pipe", "status_timeouts", key), f"'{key}' {text}")
        return result

    def _others(self) -> None:
        """Remarks on stages, their parts and their kinds that are not known."""
        known: dict[str, dict[str, tuple[str, ...]]] = {
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
        for stage in self._config:
            if stage in ("name", "stage_pipe"):
                continue
            if stage not in known:
                self._remark((stage,), f"'{stage}' is left out: a job has no such part")
                continue
            for part in as_mapping(self._config[stage]):
                kinds = known[stage].get(part)
                kind = self._type(stage, part)
                if kinds is None:
                    self._remark((stage, part), f"'{part}' is left out: {stage} has no such part here")
                elif kind not in kinds:
                    self._remark(
                        (stage, part, "type"), f"type '{kind}' is taken for '{kinds[0]}': check that it is one"
                    )

    # --- looking into the configuration ---

    def _args(self, stage: str, part: str) -> Mapping[str, Any]:
        return as_mapping(as_mapping(as_mapping(self._config.get(stage)).get(part)).get("args"))

    def _type(self, stage: str, part: str) -> object:
        return as_mapping(as_mapping(self._config.get(stage)).get(part)).get("type")

    def _remark(self, path: Iterable[Key], text: str) -> None:
        self._remarks.append(Problem(self._source.where(path), text))


def _stage(component: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"component": component, "args": args} if args else {"component": component}


def _number(value: Any) -> Any:
    """`1/30` as the number that it means."""
    if isinstance(value, str) and _RATIO.fullmatch(value):
        above, below = value.split("/")
        return float(Fraction(above.strip()) / Fraction(below.strip()))
    return value


def _tasks_in(path: Path) -> tuple[int, str]:
    """How many tasks a task file has, and why that is not known (then 1)."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        return 1, f"{path} cannot be read ({error.strerror})"
    except (UnicodeDecodeError, yaml.YAMLError):
        return 1, f"{path} is not valid YAML"
    tasks = as_mapping(content).get("tasks")
    if not isinstance(tasks, list) or not tasks:
        return 1, f"{path} has no list of tasks"
    return len(tasks), ""


def _line(remark: Problem) -> int:
    line = remark.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0
