"""docs/extend/testing.md: the planner of the page is judged as the page says, before and after it is mended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nimbusd.testing import LINES, TestPlan, check_component

PAGE = (Path(__file__).parents[2] / "docs" / "extend" / "testing.md").read_text()
PLANNER, OWN_TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAME = "my_package.planners:Patrol"
QUICK = TestPlan(runs=4, twins=0)
pytestmark = pytest.mark.processes


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the page's planner, in a package that new processes find."""
    path = tmp_path / "my_package" / "planners.py"
    path.parent.mkdir()
    path.with_name("__init__.py").touch()
    path.write_text(PLANNER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return path


def test_the_planner_of_the_page_fails_as_the_page_says(module: Path) -> None:
    report = check_component(NAME, {"speed_m_s": 0.4}, plan=QUICK)
    (told,) = re.findall(r"^results +fails +(.*)$", PAGE, re.MULTILINE)
    assert [finding.line for finding in report.failed] == ["results"], str(report)
    assert report["results"].evidence == told


def test_mended_as_the_page_says_it_passes_the_pages_test(module: Path) -> None:
    (mended,) = re.findall(r"`(np\.diff\(rows, axis=0, append.*?)` mends it", PAGE)
    module.write_text(PLANNER.replace("np.diff(rows, axis=0)", mended))
    names: dict[str, object] = {}
    exec(OWN_TEST, names)
    test = names["test_patrol_keeps_the_contract"]
    assert callable(test)
    test()


def test_the_page_has_a_row_for_every_line_of_the_contract() -> None:
    section = PAGE.partition("## The lines")[2].partition("## What it is given")[0]
    rows = re.findall(r"^\| `([\w ]+)` \|", section, re.MULTILINE)
    assert rows == list(LINES)
