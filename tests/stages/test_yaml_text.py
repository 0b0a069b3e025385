"""YAML within bounds: what is read, and what is refused before anything is built of it."""

from __future__ import annotations

import contextlib
import math
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nimbusd.job import JobError, read_job
from nimbusd.job.imported import import_config
from nimbusd.stages.yaml_text import YamlError, read_yaml, write_yaml
from tests.job.test_job_file import JOB

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes\nb: No\nc: on", {"a": True, "b": False, "c": True}),
        ("a: 1e3\nb: 1.5E-2\nc: .5\nd: 5.\ne: -0.25", {"a": 1000.0, "b": 0.015, "c": 0.5, "d": 5.0, "e": -0.25}),
        ("a: 0x1F\nb: 0b11\nc: 010\nd: 1_000\ne: -3", {"a": 31, "b": 3, "c": 8, "d": 1000, "e": -3}),
        ("a: .inf\nb: -.Inf", {"a": math.inf, "b": -math.inf}),
        ("a: 08\nb: 1:30\nc: 0b_", {"a": "08", "b": "1:30", "c": "0b_"}),
        ("a: 2024-01-01\nb: 2024-01-01T10:00:00Z", {"a": "2024-01-01", "b": "2024-01-01T10:00:00Z"}),
        ("a: " + "9" * 5000, {"a": "9" * 5000}),
        ("1: x\nyes: y\n~: z", {"1": "x", "yes": "y", "~": "z"}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: ~\nb:\nc: ''", {"a": None, "b": None, "c": ""}),
        ("a: &x {k: 1}\nb: *x", {"a": {"k": 1}, "b": {"k": 1}}),
        ("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}", {"a": {"k": 1, "l": 2}, "b": {"k": 1, "l": 3}}),
        ("a: !!str 5", {"a": "5"}),
        ("", None),
    ],
)
def test_plain_values_are_read(text: str, value: Any) -> None:
    assert read_yaml(text).value == value


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (BOMB, 6, "more than 500,000 values"),
        ("a: 1\nb: &b [*b]", 2, "'*b' stands inside of what it refers to"),
        ("a: &a {b: {c: *a}}", 1, "'*a' stands inside of what it refers to"),
        ("- &a x\n" + "- *a\n" * 1001, 1002, "more than 1,000 aliases"),
        ("a: " + "[" * 30 + "]" * 30, 1, "nested more than 24 levels deep"),
        ("a: &a " + "[" * 15 + "]" * 15 + "\nb: " + "[" * 15 + "*a" + "]" * 15, 2, "nested more than 24 levels deep"),
        ("[" * 100_000, 1, "nest"),
        ("a: 1\nb:\n\t- c", 3, "indent with spaces"),
        ("a: 1\nb: \0", 2, "control character"),
        ("a: \x1b[31m", 1, "control character"),
        ('"\\e[31m": 1', 1, "the key '\\x1b[31m' has control characters"),
        ("a: '\ud800'", 1, "not valid text"),
        ("a: !!binary aGk=", 1, "the tag 'tag:yaml.org,2002:binary' has no meaning here"),
        ("a: !!set {x}", 1, "has no meaning here"),
        ("a: !!python/object/apply:os.system [x]", 1, "has no meaning here"),
        ("a: *nobody", 1, "undefined alias"),
        ("a: {<<: 3}", 1, "'<<' takes a mapping"),
        ("? [a]\n: 1", 1, "a key must be a word"),
        ("a: 1\na: 2", 2, "key 'a' is given twice, first on line 1"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: " + "x" * (9 << 20), 1, "the limit is 8,388,608"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(text: str, line: int, sentence: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    ((told, words),) = caught.value.mistakes
    assert (told, sentence in words) == (line, True), words


def test_a_bomb_is_refused_before_it_is_built() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(YamlError):
            read_yaml(BOMB)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["1e3", "yes", "2024-01-01", "0x1", "<<", "~", "08", "1:30", "=", ".inf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c", "1", "no"]), inner),
    max_leaves=6,
)


@example({"a": "\x85", "yes": ["b\u2028c", "\u2029"]})
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "1e3", "yes"]), PLAIN))
def test_what_is_written_is_read_again(value: Any) -> None:
    assert read_yaml(write_yaml(value)).value == value


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@,? \n\t01.e_<~\0\x1b\ufeff\x85"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        read_yaml(text)


def test_bombs_in_files_overrides_and_configurations_are_told(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(BOMB)
    with pytest.raises(JobError, match=r"job\.yaml:6: more than 500,000 values"):
        read_job(path)
    path.write_text(JOB)
    for override in ("scenes.0.path=&a [*a]", "seed=!!binary x", "a." * 30 + "b=1", "scenes.²=1", "..=2", "\x1b=3"):
        with pytest.raises(JobError, match="--set"):
            read_job(path, overrides=[override])
    path.write_text("".join(f"a{level}: ${{a{level + 1}}}${{a{level + 1}}}\n" for level in range(40)))
    with pytest.raises(JobError, match="more than 10,000 references"):
        import_config(path, root=tmp_path, job_folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"name: \xff", "not UTF-8 text"),
        ("name: toy".encode("utf-16"), "not UTF-8 text"),
        (b"x: " + b"y" * (9 << 20), "larger than 8,388,608 bytes"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8 text"),
        (b"", "a job file is a mapping of keys"),
        (b"- a", "a job file is a mapping of keys"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(JobError, match=re.escape(sentence)):
        read_job(path)


def test_an_override_changes_one_of_two_aliases(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("path: meshes/flat.glb", "path: &p a.glb").replace("count: 3", "path: *p"))
    job = read_job(path, overrides=["scenes.0.path=b.glb"])
    assert [job.scene_entries[name]["path"] for name in job.scenes] == ["b.glb", "a.glb"]
