"""Names of things in instructions: by noun and colour, and by what a person sees where these are equal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.stages.workflow.sim.layout.layout import ObjectLayout, Pose, RegionLayout
from nimbusd.stages.workflow.sim.models.objects import LIBRARY
from nimbusd.stages.workflow.sim.randomize.wording import nouns_of


def thing(name: str, x: float, y: float, noun: str = "can") -> ObjectLayout:
    return ObjectLayout(
        name, noun, LIBRARY["can"].model_copy(update={"noun": noun}), noun, 10, Pose((x, y, 0.8)), (0.06, 0.06, 0.1)
    )


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(0.5, 0.0)], ["can"]),
        ([(0.5, -0.1), (0.5, 0.1)], ["right can", "left can"]),
        ([(0.6, 0.0), (0.4, 0.01)], ["farther can", "nearer can"]),
        ([(0.5, -0.2), (0.5, 0.2), (0.5, 0.0)], ["rightmost can", "leftmost can", "middle can"]),
        (
            [(0.5, 0.3), (0.5, 0.2), (0.5, 0.1), (0.5, 0.0)],
            ["leftmost can", "second can from the left", "third can from the left", "rightmost can"],
        ),
        (
            [(0.3, 0.0), (0.4, 0.0), (0.5, 0.0), (0.6, 0.0)],
            ["nearest can", "second can from the front", "third can from the front", "farthest can"],
        ),
    ],
)
def test_things_of_one_noun_are_called_by_where_they_stand(places: list[tuple[float, float]], words: list[str]) -> None:
    objects = [thing(f"o{index}", *place) for index, place in enumerate(places)]
    assert list(nouns_of(objects, []).values()) == words


def test_only_what_is_called_alike_gets_a_place() -> None:
    objects = [thing("a", 0.5, 0.1, "red cube"), thing("b", 0.5, -0.1, "blue cube"), thing("c", 0.4, 0.1, "bin")]
    region = RegionLayout("bin", 13, Pose((0.4, -0.1, 0.8)), (0.1, 0.1))
    nouns = nouns_of(objects, [region])
    assert nouns == {"a": "red cube", "b": "blue cube", "c": "left bin", "bin": "right bin"}


@given(
    st.lists(
        st.tuples(st.integers(30, 70), st.integers(-40, 40)), min_size=2, max_size=13, unique=True
    )
)  # fmt: skip
def test_every_thing_has_words_of_its_own_which_are_true_and_no_number_of_ours(places: list[tuple[int, int]]) -> None:
    objects = [thing(f"can_{index}", x / 100, y / 100) for index, (x, y) in enumerate(places)]
    nouns = nouns_of(objects, [])
    assert len(set(nouns.values())) == len(objects)
    assert not any(re.search(r"can_\d|first", noun) for noun in nouns.values())
    ys, xs = ([entry.pose.position[axis] for entry in objects] for axis in (1, 0))
    right, near = [-y for y in ys], [-x for x in xs]
    extremes: dict[str, list[float]] = {"left": ys, "leftmost": ys, "right": right, "rightmost": right}
    extremes |= {"farther": xs, "farthest": xs, "nearer": near, "nearest": near}
    for entry, value in zip(objects, range(len(objects)), strict=True):
        word = nouns[entry.name].split()[0]
        if word in extremes:
            assert extremes[word][value] == max(extremes[word])


def test_words_do_not_depend_on_the_order_in_which_things_were_made() -> None:
    objects = [thing(f"o{index}", 0.5, y) for index, y in enumerate((0.2, -0.1, 0.0))]
    assert nouns_of(objects, []) == nouns_of(objects[::-1], [])
