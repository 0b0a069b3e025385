"""`nimbusctl import`: configurations of the open-source engine as job files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli import cli
from nimbusd.job import JobError, load_job
from nimbusd.job.imported import Imported, import_config
from tests.support.toy_workflow import task_file

PIPE = """\
name: toy_pipe
load_stage:
  scene_loader:
    type: env_loader
    args:
      workflow_type: tests.support.toy_workflow:ToyArm
      cfg_path: tasks.yaml
      shift_m: 0.1
      task_repeat: 2
      simulator:
        physics_dt: 1/30
        headless: True
  layout_random_generator:
    type: env_randomizer
    args:
      random_num: 3
      strict_mode: true
      colour: red
plan_stage:
  seq_planner:
    type: env_planner
dump_stage:
  dumper:
    type: env
dedump_stage:
  dedumper:
    type: de
  scene_loader:
    type: env_loader
    args:
      workflow_type: tests.support.toy_workflow:ToyArm
      cfg_path: tasks.yaml
      simulator:
        physics_dt: 1/30
        multi_gpu: true
  layout_random_generator:
    type: env_randomizer
  seq_planner:
    type: env_reader
render_stage:
  renderer:
    type: env_renderer
store_stage:
  writer:
    type: env_writer
    args:
      batch_async: false
      output_dir: output/${name}/
stage_pipe:
  stage_num: [3, 3]
  stage_dev: ["gpu", "gpu"]
  worker_num: [2, 1]
  worker_schedule: True
  safe_threshold: 100
  status_timeouts:
    idle: 360
    running: 600
  monitor_check_interval: 120
"""


def imported(folder: Path, text: str = PIPE, **changes: Any) -> Imported:
    config = folder / "de_pipe.yaml"
    if changes:
        values = yaml.safe_load(text)
        values.update({key: value for key, value in changes.items() if value is not None})
        text = yaml.safe_dump({key: value for key, value in values.items() if changes.get(key, 1) is not None})
    config.write_text(text)
    return import_config(config, root=folder, job_folder=folder)


def remark_on(made: Imported, word: str) -> str:
    return next(str(remark) for remark in made.remarks if word in remark.text)


def test_an_imported_job_can_be_read_and_means_the_same(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path)
    (tmp_path / "job.yaml").write_text(made.text())
    job = load_job(tmp_path / "job.yaml").job
    assert (job.name, job.episodes_per_scene, job.exact, job.randomize_every) == ("toy_pipe", 6, True, 1)
    assert job.output == Path("output/toy_pipe").absolute()
    assert job.scenes == ("tasks_000", "tasks_001")
    assert job.scene_config("tasks_001").model_dump()["task"] == 1
    assert job.scene_config("tasks_000").model_dump()["cfg_path"] == tmp_path / "tasks.yaml"
    load = job.stages["load"].args
    assert load["simulator"] == {"physics_dt": 1 / 30, "headless": True}
    assert load["workflow_args"] == {"shift_m": 0.1}
    assert {kind: spec.component for kind, spec in job.stages.items()} == {
        "load": "EnvLoader",
        "randomize": "EnvRandomizer",
        "plan": "EnvPlanner",
        "render": "EnvRenderer",
        "store": "EnvWriter",
    }
    assert job.workers == 3
    assert job.limits.episode_timeout_s == 600


def test_stages_that_are_cut_become_decoupled_processes_and_it_is_said(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path)
    assert made.job["mode"] == "decoupled"
    number = next(number for number, line in enumerate(PIPE.splitlines(), 1) if "stage_num" in line)
    assert f":{number}: 'stage_num' becomes `mode: decoupled`" in remark_on(made, "decoupled")
    in_one = imported(tmp_path, dump_stage=None, dedump_stage=None, stage_pipe={"stage_num": [6], "worker_num": [1]})
    assert "mode" not in in_one.job


def test_every_key_without_a_counterpart_is_told_with_its_line(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path)
    lines = PIPE.splitlines()
    for key in (
        "task_repeat",
        "colour",
        "multi_gpu",
        "batch_async",
        "stage_num",
        "stage_dev",
        "worker_schedule",
        "safe_threshold",
        "idle",
        "monitor_check_interval",
    ):
        remark = next(remark for remark in made.remarks if f"{key}" in remark.text)
        number = next(number for number, line in enumerate(lines, start=1) if line.strip().startswith(f"{key}:"))
        assert remark.where == f"{tmp_path / 'de_pipe.yaml'}:{number}", key


def test_no_key_is_dropped_in_silence(tmp_path: Path) -> None:
    task_file(tmp_path)
    extra = PIPE.replace("  renderer:\n", "  post:\n    type: blur\n  renderer:\n") + "gpu_pool: 4\n"
    made = imported(tmp_path, extra)
    assert "a job has nothing like it" in remark_on(made, "'render_stage.post'")
    assert "a job has nothing like it" in remark_on(made, "'gpu_pool'")


def paths_in(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every mapping in a configuration."""
    inner = [inside for key, item in value.items() if isinstance(item, dict) for inside in paths_in(item, (*path, key))]
    return [path, *inner]


@pytest.mark.parametrize("value", [None, 7, [1, 2], {"deeper": 1}], ids=["nothing", "number", "list", "mapping"])
def test_an_unknown_key_is_told_or_carried_over_wherever_it_stands(tmp_path: Path, value: object) -> None:
    task_file(tmp_path)
    for place in paths_in(yaml.safe_load(PIPE)):
        config = yaml.safe_load(PIPE)
        target = config
        for key in place:
            target = target[key]
        target["unheard_of"] = value
        made = imported(tmp_path, yaml.safe_dump(config, sort_keys=False))
        told = any("unheard_of" in remark.text for remark in made.remarks)
        assert told or "unheard_of" in yaml.safe_dump(made.job), place


def test_references_are_filled_in_and_those_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    task_file(tmp_path)
    text = PIPE.replace("output/${name}/", "output/${name}/${load_stage.layout_random_generator.args.random_num}")
    text = text.replace("shift_m: 0.1", "shift_m: ${oc.env:SHIFT}").replace("colour: red", "colour: ${name}")
    made = imported(tmp_path, text)
    assert made.job["output"] == "output/toy_pipe/3"
    line = next(number for number, line in enumerate(text.splitlines(), start=1) if "oc.env" in line)
    remark = next(remark for remark in made.remarks if "has no value in this file" in remark.text)
    assert (remark.where, "${oc.env:SHIFT}" in remark.text) == (f"{tmp_path / 'de_pipe.yaml'}:{line}", True)


def test_references_that_go_round_in_circles_are_told(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, PIPE.replace("output/${name}/", "${store_stage.writer.args.output_dir}"))
    assert "output" not in made.job
    assert "has no value in this file" in remark_on(made, "output_dir}")


def test_a_job_of_plans_alone_keeps_its_output_folder(tmp_path: Path) -> None:
    task_file(tmp_path)
    plans = PIPE.replace("output_dir:", "seq_output_dir:")
    made = imported(tmp_path, plans, render_stage=None, dedump_stage=None, dump_stage=None, stage_pipe=None)
    assert made.job["output"] == "output/toy_pipe"


def test_each_recorded_plan_of_an_input_folder_becomes_a_scene(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text("- {name: one}\n")
    (tmp_path / "plan").mkdir()
    for name in ("b.pkl", "a.pkl"):
        (tmp_path / "plan" / name).write_bytes(b"")
    made = imported(
        tmp_path,
        PIPE.replace("random_num: 3", "input_dir: plan").replace("      strict_mode: true\n", ""),
        plan_stage={"seq_planner": {"type": "env_reader"}},
    )
    assert made.job["scenes"] == [
        {"name": f"tasks_plan_{number:03d}", "cfg_path": "tasks.yaml", "task": 0, "layout_path": path, "seq_path": path}
        for number, path in enumerate(["plan/a.pkl", "plan/b.pkl"])
    ]
    (tmp_path / "job.yaml").write_text(made.text())
    assert load_job(tmp_path / "job.yaml").job.scenes == ("tasks_plan_000", "tasks_plan_001")


def test_an_input_folder_that_is_empty_or_missing_says_what_to_write_instead(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, PIPE.replace("random_num: 3", "input_dir: nowhere"))
    assert "`layout_path` and `seq_path`" in remark_on(made, "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("random_num: 3", "random_num: many", "no number of times"),
        ("random_num: 3", "random_num: 0", "no number of times"),
        ("worker_num: [2, 1]", 'worker_num: ["a"]', "'stage_pipe.worker_num' is left out"),
        ("running: 600", "running: long", "'stage_pipe.status_timeouts.running' is left out"),
        ("cfg_path: tasks.yaml\n      shift_m", "shift_m", "cfg_path is missing"),
        (
            "simulator:\n        physics_dt: 1/30\n        headless: True\n",
            "simulator: fast\n",
            "simulator' is left out",
        ),
    ],
)
def test_values_that_make_no_sense_are_told(tmp_path: Path, old: str, new: str, word: str) -> None:
    task_file(tmp_path)
    assert old in PIPE
    assert remark_on(imported(tmp_path, PIPE.replace(old, new, 1)), word)


def test_a_ratio_of_zero_stays_as_it_is_written(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, PIPE.replace("physics_dt: 1/30", "physics_dt: 1/0"))
    assert made.job["pipeline"]["load"]["args"]["simulator"]["physics_dt"] == "1/0"


def test_half_of_a_configuration_in_two_passes_says_that_a_job_plans_by_itself(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, plan_stage=None, dump_stage=None)
    assert "there is no plan_stage" in remark_on(made, "plan_stage")


def test_remarks_stand_at_the_top_of_the_job_file(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path)
    text = made.text().splitlines()
    assert all(line.startswith("# ") for line in text[: len(made.remarks)])
    assert yaml.safe_load(made.text()) == made.job


def test_a_task_file_that_is_not_there_gives_one_scene_and_a_remark(tmp_path: Path) -> None:
    made = imported(tmp_path)
    assert [scene["name"] for scene in made.job["scenes"]] == ["tasks"]
    assert "cannot be read (No such file or directory), so only its first task" in remark_on(made, "tasks.yaml")


def test_plan_with_render_is_one_component_in_one_process(tmp_path: Path) -> None:
    task_file(tmp_path)
    one_pass = {"plan_with_render": {"type": "plan_with_render"}}
    made = imported(
        tmp_path,
        plan_with_render_stage=one_pass,
        plan_stage=None,
        render_stage=None,
        dump_stage=None,
        dedump_stage=None,
        stage_pipe=None,
    )
    assert made.job["pipeline"]["plan"]["args"] == {"with_render": True}
    assert "args" not in made.job["pipeline"]["render"]


def test_without_a_render_stage_plans_alone_are_kept(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, render_stage=None, dump_stage=None, dedump_stage=None, stage_pipe=None)
    assert made.job["pipeline"]["render"]["args"] == {"render": False}


def test_reading_recorded_plans_says_where_to_name_them(tmp_path: Path) -> None:
    task_file(tmp_path)
    made = imported(tmp_path, plan_stage={"seq_planner": {"type": "env_reader"}})
    assert "seq_path" in remark_on(made, "recorded plans")


def test_what_is_no_such_configuration_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        imported(tmp_path, "name: x\nload_stage:\n  scene_loader:\n    type: mesh\n")
    assert "must be an env_loader" in str(caught.value.problems[0])
    assert caught.value.problems[0].where.endswith(":3")


def test_the_command_writes_a_job_and_does_not_write_over_one(tmp_path: Path) -> None:
    task_file(tmp_path)
    config, out = tmp_path / "de_pipe.yaml", tmp_path / "jobs" / "job.yaml"
    config.write_text(PIPE)
    out.parent.mkdir()
    call = ["import", str(config), "--out", str(out), "--root", str(tmp_path)]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    assert "remark: " in done.output
    assert load_job(out).job.scene_config("tasks_000").model_dump()["cfg_path"] == tmp_path / "jobs/../tasks.yaml"
    assert CliRunner().invoke(cli, call).exit_code == 2
    assert CliRunner().invoke(cli, [*call, "--force"]).exit_code == 0


def test_the_command_tells_all_as_json(tmp_path: Path) -> None:
    task_file(tmp_path)
    config = tmp_path / "de_pipe.yaml"
    config.write_text(PIPE)
    done = CliRunner().invoke(cli, ["import", str(config), "--root", str(tmp_path), "--json"])
    told = json.loads(done.output)
    assert told["job"]["name"] == "toy_pipe"
    assert {"where", "text"} == set(told["remarks"][0])
