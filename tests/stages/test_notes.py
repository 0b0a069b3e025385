"""Notes in types: what is described is read back; what is read must have its form, what nobody reads need not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.stages import ComponentError
from nimbusd.stages.notes import KEY_POINTS, SUB_TASKS, KeyPointNote, Notes, Result, SubTask

WORDS = st.text(max_size=8)
FRAMES = st.integers(0, 10_000)
NUMBERS = st.floats(-10, 10)
PLACES = st.tuples(NUMBERS, NUMBERS, NUMBERS)


@given(st.lists(st.builds(SubTask, FRAMES, FRAMES, WORDS, WORDS, WORDS), max_size=3))
def test_sub_tasks_are_read_as_they_were_described(parts: list[SubTask]) -> None:
    assert Notes({SUB_TASKS: [part.described() for part in parts]}).sub_tasks == tuple(parts)


@given(st.lists(st.builds(KeyPointNote, WORDS, WORDS, WORDS, PLACES, FRAMES, WORDS, PLACES, NUMBERS), max_size=3))
def test_key_points_are_read_as_they_were_described(points: list[KeyPointNote]) -> None:
    assert Notes({KEY_POINTS: [point.described() for point in points]}).key_points == tuple(points)


@given(st.builds(Result, st.just(False), WORDS, WORDS))
def test_results_are_read_as_they_were_described(result: Result) -> None:
    assert Notes({"result": result.described()}).result == result


def test_a_success_says_no_more_than_that() -> None:
    assert Result().described() == {"success": True, "reason": None}
    assert Notes({}).result == Result()


def test_what_is_left_out_is_empty() -> None:
    notes = Notes({"keypoints": [{"name": "grasp", "kind": "grasp", "position": [0, 0, 0.02], "row": 3}]})
    assert notes.key_points == (KeyPointNote("grasp", "grasp", "", (0, 0, 0.02), 3),)
    assert (notes.sub_tasks, notes.nouns, notes.sizes_m, notes.robot_type) == ((), {}, {}, "")


@pytest.mark.parametrize(
    ("attribute", "notes", "words"),
    [
        ("result", {"result": {"success": 1}}, "must be {'success': bool, 'reason': word}"),
        ("result", {"result": "well"}, "must be {'success': bool, 'reason': word}"),
        (
            "sub_tasks",
            {"sub_tasks": [{"start": 0, "stop": 4}]},
            "a part of it has no 'instruction'",
        ),
        ("sub_tasks", {"sub_tasks": 3}, "notes['sub_tasks'] cannot be read"),
        ("key_points", {"keypoints": [{"name": "a", "kind": "b", "position": [1, 2]}]}, "notes['keypoints'] cannot be"),
        ("nouns", {"nouns": ["cube"]}, "notes['nouns'] cannot be read"),
        ("sizes_m", {"sizes_m": {"cube": [1, 2]}}, "notes['sizes_m'] cannot be read"),
        ("robot_type", {"robot": "franka"}, "notes['robot'] cannot be read"),
    ],
)
def test_a_note_of_another_form_is_named(attribute: str, notes: dict[str, Any], words: str) -> None:
    with pytest.raises(ComponentError) as caught:
        getattr(Notes(notes), attribute)
    assert words in str(caught.value)


def test_a_note_that_nobody_reads_may_be_anything() -> None:
    notes = Notes({"nouns": 3, "keypoints": "words", "sub_tasks": []})
    assert notes.sub_tasks == ()
