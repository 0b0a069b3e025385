from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from nimbusd.job import Job, JobError, read_job
from nimbusd.stages.errors import ComponentError
from tests.support.checked_components import RobotPlanner, RobotPlannerArgs, SeededScene

CHECKED = "tests.support.checked_components"
JOB = f"""\
name: toy
seed: 5
scenes:
  - name: flat
    path: meshes/flat.glb
  - name: house
    count: 3
    seed: 40
episodes_per_scene: 2
randomize_every: 2
pipeline:
  load: {{component: "{CHECKED}:SeededLoader"}}
  randomize: {{component: "tests.support.toy:ToyRandomizer"}}
  plan:
    component: {CHECKED}:RobotPlanner
    args:
      fps: 5
      map: floor.png
  render: {{component: "tests.support.toy:ToyRenderer"}}
  store: {{component: "tests.support.toy:ToyWriter"}}
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def problems_of(path: Path, text: str, *overrides: str) -> dict[str, str]:
    """Place (`LINE`, or `--set KEY`) → sentence, for a job file that must be refused."""
    path.write_text(text)
    with pytest.raises(JobError) as caught:
        read_job(path, overrides=overrides)
    return {problem.where.removeprefix(f"{path}:"): problem.text for problem in caught.value.problems}


def test_a_count_makes_numbered_scenes_whose_seeds_count_up(job_file: Path) -> None:
    job = read_job(job_file)
    assert job.scenes == ("flat", "house_000", "house_001", "house_002")
    assert [job.scene_entries[name]["seed"] for name in job.scenes] == [7, 40, 41, 42]
    assert job.total_episodes == 8


def test_files_in_scenes_and_arguments_start_at_the_scenes_root(job_file: Path, tmp_path: Path) -> None:
    job = read_job(job_file)
    assert job.scene_config("flat") == SeededScene(name="flat", path=tmp_path / "meshes/flat.glb")
    assert job.make("plan").args.map == tmp_path / "floor.png"
    elsewhere = read_job(job_file, overrides=["scenes_root=../assets"])
    config = elsewhere.scene_config("flat")
    assert isinstance(config, SeededScene)
    assert config.path is not None
    assert config.path.resolve() == (tmp_path.parent / "assets/meshes/flat.glb").resolve()


def test_a_stage_is_made_with_its_checked_arguments(job_file: Path) -> None:
    planner = read_job(job_file).make("plan")
    assert isinstance(planner, RobotPlanner)
    assert isinstance(planner.args, RobotPlannerArgs)
    assert planner.args.fps == 5


def test_arguments_that_a_component_does_not_take_here_are_told_in_one_sentence(job_file: Path) -> None:
    written = read_job(job_file).to_dict()
    written["stages"]["plan"]["args"]["fps"] = "fast"
    job = Job.from_dict(written)
    for use in (lambda: job.make("plan"), job.describe):
        with pytest.raises(ComponentError, match=r"plan: .*RobotPlanner: fps"):
            use()


def test_the_output_is_out_and_the_jobs_name_unless_told(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_job(job_file).output == tmp_path / "out/toy"
    assert read_job(job_file, overrides=["output=there"]).output == tmp_path / "there"
    assert read_job(job_file, output=Path("/data/toy"), overrides=["output=there"]).output == Path("/data/toy")


def test_a_job_survives_a_trip_through_json(job_file: Path) -> None:
    job = read_job(job_file)
    again = Job.from_dict(orjson.loads(orjson.dumps(job.to_dict())))
    assert again == job
    assert again.scenes == job.scenes
    assert again.fingerprint() == job.fingerprint()


@pytest.mark.parametrize(
    "override",
    [
        "seed=6",
        "episodes_per_scene=3",
        "exact=false",
        "randomize_every=0",
        "pipeline.plan.args.fps=6",
        "scenes.1.seed=1",
    ],
)
def test_what_determines_the_episodes_changes_the_fingerprint(job_file: Path, override: str) -> None:
    assert read_job(job_file, overrides=[override]).fingerprint() != read_job(job_file).fingerprint()


@pytest.mark.parametrize(
    "override",
    [
        "workers=3",
        "output=/x",
        "limits.attempts=9",
        "limits.stage_timeout_s={load: 9}",
        "pipeline.plan.args.waypoints=[]",
    ],
)
def test_what_leaves_the_episodes_alone_leaves_the_fingerprint_alone(job_file: Path, override: str) -> None:
    assert read_job(job_file, overrides=[override]).fingerprint() == read_job(job_file).fingerprint()


def test_the_fingerprint_changes_with_a_components_version(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_job(job_file).fingerprint()
    monkeypatch.setattr(RobotPlanner, "version", "2.0.0")
    assert read_job(job_file).fingerprint() != before


def test_a_job_that_travels_without_its_scenes_keeps_its_fingerprint(job_file: Path) -> None:
    job = read_job(job_file)
    travelled = Job.from_dict(orjson.loads(orjson.dumps(job.without_scenes().to_dict())))
    assert not travelled.scenes
    assert travelled.fingerprint() == travelled.without_scenes().fingerprint() == job.fingerprint()


def test_variants_of_a_scene_change_every_so_many_indexes(job_file: Path) -> None:
    assert [read_job(job_file).variant(index) for index in range(5)] == [0, 0, 1, 1, 2]
    assert read_job(job_file, overrides=["randomize_every=0"]).variant(9) == 0


def test_a_stage_may_have_a_timeout_of_its_own(job_file: Path) -> None:
    job_file.write_text(JOB + "limits:\n  beat_timeout_s: 60\n  stage_timeout_s: {load: 300, plan: 20}\n")
    limits = read_job(job_file).limits
    assert limits.stage_limits_s() == {"load": 300.0, "plan": 20.0}
    assert limits.longest_silence_s() == 300.0
    assert read_job(job_file, overrides=["limits.stage_timeout_s={}"]).limits.longest_silence_s() == 60.0


def test_a_timeout_of_an_unknown_stage_names_the_nearest_one(job_file: Path) -> None:
    text = JOB + "limits:\n  stage_timeout_s:\n    rendr: 10\n    plan: 0\n"
    assert problems_of(job_file, text) == {
        "23": "unknown key 'rendr'; did you mean 'render'?",
        "24": "limits.stage_timeout_s.plan: must be greater than 0, but it is 0",
    }


def test_a_job_from_before_stages_had_timeouts_is_the_same_job(job_file: Path) -> None:
    job = read_job(job_file)
    spec = orjson.loads(orjson.dumps(job.to_dict()))
    del spec["limits"]["stage_timeout_s"]
    assert Job.from_dict(spec) == job


def test_all_mistakes_are_told_at_once_with_their_lines(job_file: Path) -> None:
    text = JOB.replace("seed: 5\n", "sead: 5\n").replace("      fps: 5\n", "      fpz: 5\n")
    text = text.replace("    path: mesh", "    pth: mesh").replace("episodes_per_scene: 2", "episodes_per_scene: 0")
    assert problems_of(job_file, text) == {
        "2": "unknown key 'sead'; did you mean 'seed'?",
        "5": "unknown key 'pth'; did you mean 'path'?",
        "9": "episodes_per_scene: must be 1 or more, but it is 0",
        "17": "unknown key 'fpz'; did you mean 'fps'?",
    }


def test_a_key_given_twice_is_an_error_that_names_both_lines(job_file: Path) -> None:
    assert problems_of(job_file, JOB + "seed: 6\n") == {"21": "key 'seed' is given twice, first on line 2"}


def test_two_scenes_with_one_name_are_an_error_that_names_both_lines(job_file: Path) -> None:
    text = JOB.replace("- name: house\n    count: 3", "- name: flat")
    (place, sentence), *rest = problems_of(job_file, text).items()
    assert (place, rest) == ("6", [])
    assert f"first at {job_file}:4" in sentence


def test_a_scene_name_that_cannot_be_a_folder_is_refused(job_file: Path) -> None:
    assert "may only have letters" in problems_of(job_file, JOB.replace("name: flat", "name: ../flat"))["4"]


def test_a_missing_stage_is_named(job_file: Path) -> None:
    text = "\n".join(line for line in JOB.splitlines() if not line.startswith("  store:"))
    assert problems_of(job_file, text) == {"11": "key 'store' is missing"}


def test_a_component_that_does_not_exist_is_told_with_its_line(job_file: Path) -> None:
    problems = problems_of(job_file, JOB.replace(f"component: {CHECKED}:RobotPlanner", "component: NavPlannr"))
    assert list(problems) == ["15"]
    assert "did you mean 'NavPlanner'?" in problems["15"]


def test_a_count_of_scenes_without_seeds_is_refused(job_file: Path) -> None:
    problems = problems_of(
        job_file, JOB.replace("SeededLoader", "SeedlessLoader").replace("    path: meshes/flat.glb\n", "")
    )
    assert "do not have" in problems["6"]


def test_broken_yaml_is_told_with_its_line(job_file: Path) -> None:
    (problem,) = problems_of(job_file, JOB.replace("path: meshes", "path: [meshes")).items()
    assert problem == ("6", "not valid YAML: did not find expected ',' or ']'")


def test_a_missing_job_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"nothing\.yaml: the job file cannot be read: No such file"):
        read_job(tmp_path / "nothing.yaml")


def test_an_override_is_named_where_its_value_is_wrong(job_file: Path) -> None:
    assert problems_of(job_file, JOB, "pipeline.plan.args.fps=fast", "pipeline.plan.args.mapp=x") == {
        "--set pipeline.plan.args.fps": ("fps: must be a number, but it is 'fast'"),
        "--set pipeline.plan.args.mapp": "unknown key 'mapp'; did you mean 'map'?",
    }


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "an override is written KEY=VALUE, such as scenes.0.path=/data/house.glb"),
        ("scenes.9.path=x", "'scenes' is a list of 2; 9 is none of them"),
        ("seed.low=3", "'seed' is a plain value and has no key 'low'"),
    ],
)
def test_an_override_that_fits_nothing_says_why(job_file: Path, override: str, sentence: str) -> None:
    (text,) = problems_of(job_file, JOB, override).values()
    assert text == sentence
