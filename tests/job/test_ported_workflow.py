"""`nimbusctl import WORKFLOW.py`: a workflow in the open-source engine's style, moved over, and what comes of it."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli import cli
from nimbusd.job import JobError
from nimbusd.job.ported import port_workflow
from nimbusd.stages.types import Observation, Sequence
from nimbusd.stages.workflow import EnvLoader, EnvPlanner, EnvRandomizer, EnvRenderer, unpack
from nimbusd.stages.workflow.env_components import (
    EnvLoaderArgs,
    EnvPlannerArgs,
    EnvRandomizerArgs,
    EnvRendererArgs,
    EnvSceneConfig,
)

GOOD = '''\
"""A slider that goes to a mark: »Schieber«, in the engine's style."""
import os
import pickle
import random
from datetime import datetime

import yaml

from .base import NimbusWorkFlow


@NimbusWorkFlow.register("Slider")
class Slider(NimbusWorkFlow):
    def __init__(self, world, task_cfg_path: str, random_seed: int = None):
        self.random_seed = random_seed
        super().__init__(world, task_cfg_path)

    def parse_task_cfgs(self, task_cfg_path: str) -> list:
        with open(task_cfg_path) as f:
            return yaml.safe_load(f)["tasks"]

    def get_task_name(self):
        return self.task_cfg["name"]

    def reset(self, need_preload: bool = True):
        self.mark = 0.0
        self.positions = []

    def randomization(self, layout_path=None) -> bool:
        if layout_path is None:
            self.mark = random.uniform(0.2, 1.0)
        else:
            with open(layout_path, "rb") as f:
                data = pickle.load(f)
            self.data = data
            self.randomization_from_mem(data)
        return True

    def generate_seq(self) -> list:
        position = 0.0
        while position < self.mark:
            position += self.task_cfg["step"]
            self.positions.append(position)
        return self.positions

    def recover_seq(self, seq_path):
        return self.recover_seq_from_mem(self.data)

    def seq_replay(self, sequence: list) -> int:
        self.shown = []
        for position in sequence:
            self.shown.append("#" * int(20 * position))
        return len(sequence)

    def save(self, save_path: str) -> int:
        os.makedirs(save_path, exist_ok=True)
        with open(os.path.join(save_path, "shown.txt"), "w") as f:
            f.write("\\n".join(self.shown))
        return len(self.shown)

    def save_seq(self, save_path: str) -> int:
        name = datetime.now().strftime("%Y-%m-%d_%H_%M_%S_%f")
        folder = os.path.join(save_path, "plan")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{name}.pkl"), "wb") as f:
            f.write(self.dump_plan_info())
        return len(self.positions)

    def dump_plan_info(self) -> bytes:
        inner = pickle.dumps({"mark": self.mark}, protocol=4)
        return pickle.dumps((inner, self.positions))

    def dedump_plan_info(self, ser_obj: bytes) -> object:
        return pickle.loads(ser_obj)

    def randomization_from_mem(self, data) -> bool:
        inner, _ = data
        self.mark = pickle.loads(inner)["mark"]
        return True

    def recover_seq_from_mem(self, data) -> list:
        _, self.positions = data
        return self.positions
'''


def written(folder: Path, text: str = GOOD, name: str = "slider.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_mechanical_changes_are_made_and_nothing_else(tmp_path: Path) -> None:
    ported = port_workflow(written(tmp_path / "workflows"))
    old, new = GOOD.splitlines(), ported.text.splitlines()
    gone = [line.strip() for line in old if line not in new]
    come = [line.strip() for line in new if line not in old]
    assert gone == [
        "import pickle",
        "from .base import NimbusWorkFlow",
        "data = pickle.load(f)",
        'inner = pickle.dumps({"mark": self.mark}, protocol=4)',
        "return pickle.dumps((inner, self.positions))",
        "return pickle.loads(ser_obj)",
        'self.mark = pickle.loads(inner)["mark"]',
    ]
    assert come == [
        "from nimbusd.stages.workflow import NimbusWorkFlow, pack, unpack",
        "data = unpack(f.read())",
        "self.beat()",
        "self.beat()",
        'inner = pack({"mark": self.mark})',
        "return pack((inner, self.positions))",
        "return unpack(ser_obj)",
        'self.mark = unpack(inner)["mark"]',
    ]
    assert "pickle" not in ported.text
    assert all(line in ported.diff for line in come)


def test_what_is_left_to_do_is_remarked_on_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "workflows", GOOD.replace("self.mark = 0.0", "self.mark = self.world.origin"))
    told = {str(remark) for remark in port_workflow(path).remarks}
    lines = path.read_text().splitlines()

    def line(words: str) -> int:
        return next(number for number, text in enumerate(lines, start=1) if words in text)

    for words, sentence in (
        ("class Slider", 'nimbusd.workflows: Slider = "my_package.slider:Slider"'),
        ("class Slider", "create_world(cls, simulator)"),
        ("def __init__", "'random_seed' is not handed over"),
        ("datetime.now()", "datetime.now() is another at every run"),
    ):
        assert any(text.startswith(f"{path}:{line(words)}: ") and sentence in text for text in told), (words, told)


def made(module: str, config: EnvSceneConfig, *, randomize: bool, render: bool) -> tuple[Sequence, Observation]:
    scene = EnvLoader(EnvLoaderArgs(workflow_type=f"{module}:Slider")).load_asset(config)
    if randomize:
        scene = EnvRandomizer(EnvRandomizerArgs()).randomize(scene, np.random.default_rng(3))
    seq = EnvPlanner(EnvPlannerArgs()).gen_sequence(scene, np.random.default_rng(4))
    renderer = EnvRenderer(EnvRendererArgs(render=render))
    renderer.load(scene)
    return seq, renderer.gen_obs(seq)


def test_modules_of_the_simulator_are_remarked_on_where_they_are_imported_before_it_starts(tmp_path: Path) -> None:
    text = "from workflows.base import NimbusWorkFlow\nimport omni.physx\n\n\ndef later():\n    import omni.usd\n"
    told = [str(remark) for remark in port_workflow(written(tmp_path, text)).remarks]
    assert any(":2: 'omni.physx' can be imported only after its application was started" in text for text in told)
    assert not any("omni.usd" in text for text in told)


@pytest.mark.parametrize("randomize", [True, False])
def test_a_ported_workflow_plans_and_its_recorded_plans_are_shown_from_what_randomization_loaded(
    randomize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"ported_slider_{randomize}".lower()
    (tmp_path / "lib").mkdir()
    ported = port_workflow(written(tmp_path / "workflows"))
    text = ported.text.replace('@NimbusWorkFlow.register("Slider")\n', "")
    (tmp_path / "lib" / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    importlib.invalidate_caches()
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [{"name": "slide", "step": 0.25}]}))
    planned, files = made(
        module, EnvSceneConfig(name="s", cfg_path=tmp_path / "tasks.yaml"), randomize=True, render=False
    )
    folder = tmp_path / "plans/dataset/files/episode_000000"
    for name, content in files.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    recorded = EnvSceneConfig(name="p", cfg_path=tmp_path / "tasks.yaml", plans=tmp_path / "plans")
    again, seen = made(module, recorded, randomize=randomize, render=True)
    assert again.task == planned.task == "slide"
    (plan,) = [content for name, content in files.files.items() if name.endswith(".pkl")]
    _, positions = unpack(plan)
    assert positions
    shown = seen.files["shown.txt"].decode().splitlines()
    assert [len(row) for row in shown] == [int(20 * position) for position in positions]


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        (
            "pickle.dumps((inner, self.positions))",
            "pickle.Pickler(None)",
            "pickle.Pickler",
            "pickle's 'Pickler' has no counterpart",
        ),
        (
            "pickle.loads(ser_obj)",
            "map(pickle.loads, ser_obj)",
            "map(pickle.loads",
            "'loads' is handed on instead of called",
        ),
        (
            "pickle.loads(ser_obj)",
            "pickle.loads(*ser_obj)",
            "pickle.loads(*",
            "has arguments that pack and unpack do not know",
        ),
        ("import random\n", "import dill\n", "import dill", "'dill' makes pickles"),
        ("import random\n", "from cloudpickle import dumps\n", "from cloudpickle", "'cloudpickle' makes pickles"),
        ("import random\n", "from pickle import Unpickler\n", "from pickle", "pickle's 'Unpickler' has no counterpart"),
        (
            "import NimbusWorkFlow\n",
            "import NimbusWorkFlow, create_workflow\n",
            "create_workflow",
            "'create_workflow' of the engine",
        ),
        (
            "from .base import NimbusWorkFlow\n",
            "import workflows.base\n",
            "import workflows.base",
            "write 'from workflows.base import",
        ),
        ("        self.mark = 0.0\n", "        pack = 0.0\n", "pack = 0.0", "'pack' has a meaning here already"),
        ("        self.mark = 0.0\n", "        self.mark = (\n", "", "this is no Python"),
        ("from .base import NimbusWorkFlow\n", "from .other import Thing\n", "", "this is no workflow of the engine"),
    ],
)
def test_what_cannot_be_moved_is_refused_with_its_line_and_nothing_is_written(
    old: str, new: str, line: str, sentence: str, tmp_path: Path
) -> None:
    assert old in GOOD
    path = written(tmp_path / "workflows", GOOD.replace(old, new, 1))
    with pytest.raises(JobError) as told:
        port_workflow(path)
    number = next((n for n, text in enumerate(path.read_text().splitlines(), 1) if line and line in text), None)
    (problem,) = [problem for problem in told.value.problems if sentence in problem.text]
    assert number is None or problem.where == f"{path}:{number}"
    result = CliRunner().invoke(cli, ["import", str(path), "--out", str(tmp_path / "out.py")])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out.py").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import os, pickle as p\nx = p.loads(p.dumps(1))\n", "import os\nx = unpack(pack(1))\n"),
        ("from pickle import dumps as d, loads\nx = d(loads(b''), 2)\n", "x = pack(unpack(b''))\n"),
        ("import pickle\npickle.dump([1,\n  2], open('a', 'wb'))\n", "open('a', 'wb').write(pack([1,\n  2]))\n"),
        ("import pickle\nx = pickle.load(open('ä', 'rb')), 'ä'\n", "x = unpack((open('ä', 'rb')).read()), 'ä'\n"),
        (
            "try:\n    import pickle\nexcept ImportError:\n    raise\n",
            "try:\n    pass\nexcept ImportError:\n    raise\n",
        ),
        (
            "import pickle\nnote = 'a\x0cb\u2028'\nx = pickle.loads(b'')\n",
            "note = 'a\x0cb\u2028'\nx = unpack(b'')\n",
        ),
        ("NimbusWorkFlow.workflows['A'] = int\n", "NimbusWorkFlow.register('A')(int)\n"),
        ("from .simbox.core import tasks\n", "from workflows.simbox.core import tasks\n"),
    ],
)
def test_ways_of_writing_the_same(before: str, after: str, tmp_path: Path) -> None:
    path = written(tmp_path / "workflows", f"from workflows.base import NimbusWorkFlow\n{before}")
    text = port_workflow(path).text
    assert text.partition("\n")[2] == after
    ast.parse(text)


def test_the_command_shows_the_difference_and_writes_where_it_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "workflows")
    shown = CliRunner().invoke(cli, ["import", str(path)])
    assert shown.exit_code == 0
    assert "-import pickle\n" in shown.stdout
    assert "remark: " in shown.stderr
    out = tmp_path / "mine.py"
    assert CliRunner().invoke(cli, ["import", str(path), "--out", str(out)]).exit_code == 0
    assert out.read_text(encoding="utf-8") == port_workflow(path).text
    assert CliRunner().invoke(cli, ["import", str(path), "--out", str(out)]).exit_code == 2
    told: dict[str, Any] = json.loads(CliRunner().invoke(cli, ["import", str(path), "--json"]).stdout)
    assert set(told) == {"text", "diff", "remarks"}
    assert CliRunner().invoke(cli, ["import", str(out)]).exit_code == 2, "it is moved over already"
