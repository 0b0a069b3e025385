"""An environment in which MuJoCo cannot draw is told once, before a job runs, and not at every episode."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nimbusd.stages.errors import BackendUnavailable
from nimbusd.stages.workflow.sim.mujoco_module import environment_fault, import_mujoco
from tests.support.task_files import TASK, errors_of

pytestmark = pytest.mark.mujoco
pytest.importorskip("mujoco", reason="needs the mujoco extra")


@pytest.mark.parametrize(
    ("name", "value"), [("MUJOCO_GL", "osmesa"), ("MUJOCO_GL", "elg"), ("PYOPENGL_PLATFORM", "osmesa")]
)
def test_a_variable_that_keeps_mujoco_from_drawing_is_one_refusal(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nimbusd.cli.run import run

    monkeypatch.setenv(name, value)
    (text,) = errors_of(tmp_path, TASK)
    assert text.startswith(f"the environment variable {name} is '{value}'")
    assert "unset it" in text
    ran = CliRunner().invoke(run, [str(tmp_path / "job.yaml"), "--workers", "1"], catch_exceptions=False)
    assert ran.exit_code == 2
    assert ran.output.count(f"{name} is '{value}'") == 1
    with pytest.raises(BackendUnavailable, match=name):
        import_mujoco()


def test_egl_without_a_driver_is_one_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(tmp_path / "none.json"))
    (text,) = errors_of(tmp_path, TASK)
    assert text.startswith("no context of OpenGL 4.3 could be made through EGL")
    assert "sudo apt-get install libegl1" in text


@pytest.mark.parametrize("value", ["", "egl", "EGL", "glfw", "off"])
def test_what_does_not_keep_egl_from_drawing_is_none(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", value)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert environment_fault() == ""
    if value == "glfw":
        assert errors_of(tmp_path, TASK) == []


def test_a_job_that_shows_nothing_needs_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nimbusd.stages.workflow.manip import ManipWorkflow

    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(tmp_path / "none.json"))
    assert ManipWorkflow.unfit({}, render=False) == []
