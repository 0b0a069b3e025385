"""The table of formats: each line holds, and nothing outside a format's folder asks which format it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbusd.stages import ComponentError, StoreError
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.registry import create
from nimbusd.stages.store import open_dataset
from nimbusd.stages.store.formats import DEFAULT_FORMAT, FORMATS, format_named
from tests.support.store_makers import JOB, make_writer, store_episodes

ROOT = Path(__file__).parents[3]
FORMATS_FOLDER = ROOT / "stages/store/formats"
VERSION = re.compile(r"v[23]\.\d")


def modules(*folders: Path) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            yield path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", FORMATS)
def test_a_line_names_a_format_of_that_name(name: str) -> None:
    assert format_named(name).name == name
    assert format_named(name) is format_named(name)


def test_no_other_module_names_a_format_or_a_version_of_one() -> None:
    folders = [
        ROOT / "stages",
        ROOT / "renderers",
        ROOT / "transport",
        ROOT / "supervisor",
        *sorted(ROOT.glob("nimbusd/[a-z]*/")),
    ]
    own = [folder for folder in folders if not folder.is_symlink()]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in modules(*own)
        if not path.is_relative_to(FORMATS_FOLDER)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in FORMATS or VERSION.fullmatch(node.value)
    ]
    assert found == []


def test_versions_of_lerobot_do_not_know_each_other() -> None:
    prefix = "nimbusd.stages.store.formats."
    known = {
        folder: {
            name.removeprefix(prefix).partition(".")[0]
            for _, tree in modules(FORMATS_FOLDER / folder)
            for name in imported(tree)
            if name.startswith(prefix)
        }
        for folder in ("lerobot", "lerobot_v21", "lerobot_v30")
    }
    assert known["lerobot"] <= {"lerobot", "base"}
    assert known["lerobot_v21"] <= {"lerobot", "lerobot_v21", "base"}
    assert known["lerobot_v30"] <= {"lerobot", "lerobot_v30", "base"}


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ComponentError, match=r"no format is called 'lerobot-v3'; did you mean 'lerobot-v3\.0'"):
        format_named("lerobot-v3")
    with pytest.raises(ArgumentsError, match=r"did you mean 'lerobot-v2\.1'"):
        create("NavWriter", "store", {"format": "lerobot-v2"})


@pytest.mark.parametrize(("writer", "name"), [("EnvWriter", "interndata-n1"), ("NavWriter", "interndata-m1-v3.0")])
def test_a_writer_offers_the_formats_whose_arguments_it_has(writer: str, name: str) -> None:
    with pytest.raises(ArgumentsError, match=f"format '{name}' needs the arguments of "):
        create(writer, "store", {"format": name})
    assert getattr(create(writer, "store", {}), "format").name == DEFAULT_FORMAT  # noqa: B009 - create gives a BaseWriter


def test_a_version_that_no_format_opens_is_said(tmp_path: Path) -> None:
    writer = make_writer(media="image")
    root = writer.publish(tmp_path, store_episodes(writer, tmp_path, range(1)), JOB, True).resolve()
    info = root / "meta/info.json"
    content = info.read_bytes().replace(b'"v3.0"', b'"v1.6"')
    info.unlink()
    info.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"no dataset of a format that is installed here \(lerobot-v3\.0, lerobot-v2\.1"
    ):
        open_dataset(tmp_path)
