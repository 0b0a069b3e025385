"""The episodes of one scene: spans that open, close and merge, and the next index for every failed plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import NodeId, Span, indexes_of
from nimbusd.core.master.facts import ScenePlan
from nimbusd.core.master.scenes import Pending, SceneEpisodes
from nimbusd.core.records import SceneCount, SceneHistory, State, Tried

NODE = NodeId("n")


def scene(wanted: int, exact: bool = True, most: int = 100, history: SceneHistory | None = None) -> SceneEpisodes:
    return SceneEpisodes(ScenePlan("s", wanted, exact, most), Pending(), history)


def indexes(spans: tuple[Span, ...]) -> list[int]:
    return list(indexes_of(spans))


def test_episodes_are_taken_lowest_first_and_put_back_in_their_place() -> None:
    episodes = scene(10)
    assert episodes.take(3) == (Span(0, 3),)
    episodes.put_back(1)
    assert episodes.take(3) == (Span(1, 2), Span(3, 5))
    assert episodes.pending_count == 5


def test_a_lease_has_no_more_spans_than_it_may() -> None:
    episodes = scene(10)
    episodes.take(10)
    for index in (1, 3, 5, 7):
        episodes.put_back(index)
    assert episodes.take(10, most_spans=2) == (Span(1, 2), Span(3, 4))


def test_an_episode_cannot_be_pending_twice() -> None:
    episodes = scene(3)
    episodes.take(2)
    episodes.put_back(1)
    with pytest.raises(AssertionError, match="twice"):
        episodes.put_back(1)


def test_one_episode_can_be_taken_from_the_middle() -> None:
    episodes = scene(5)
    assert episodes.take_one(2)
    assert not episodes.take_one(2)
    assert indexes(episodes.take(9)) == [0, 1, 3, 4]


def test_every_failed_plan_opens_the_next_index_up_to_the_limit() -> None:
    episodes = scene(3, most=4)
    episodes.take(3)
    for index, expected in ((1, [3]), (0, [])):
        episodes.settle(index, State.FAILED)
        episodes.refill()
        assert indexes(episodes.take(9)) == expected


def test_without_exact_nothing_is_refilled() -> None:
    episodes = scene(3, exact=False)
    episodes.take(3)
    episodes.settle(0, State.FAILED)
    episodes.refill()
    assert not episodes.take(9)


def test_history_leaves_what_is_not_settled_pending() -> None:
    history = SceneHistory(SceneCount(committed=3, failed=1), (Span(0, 2), Span(4, 6)), {3: Tried(2, 1)})
    episodes = scene(5, history=history)
    assert indexes(episodes.take(99)) == [2, 3]  # five wanted and one failed: six are opened, four are settled
    assert episodes.attempts_of([Span(2, 4)]) == 2


def test_only_the_attempt_that_was_given_up_may_reclaim_its_episode() -> None:
    episodes = scene(2)
    episodes.take(2)
    episodes.put_back(0, given_up=(3, NODE))
    assert not episodes.reclaim(0, 2, NODE)
    assert not episodes.reclaim(0, 3, NodeId("another"))
    assert episodes.reclaim(0, 3, NODE)
    assert not episodes.reclaim(0, 3, NODE)
    episodes.put_back(1)
    assert not episodes.reclaim(1, 0, NODE)
    assert not episodes.reclaim(1, 1, NODE)


def test_an_index_of_a_recorded_lease_is_opened_with_all_before_it() -> None:
    episodes = scene(2)
    episodes.open_up_to(4)
    assert episodes.next_index == 5
    assert indexes(episodes.take(99)) == [0, 1, 2, 3, 4]


@given(st.data())
def test_spans_always_hold_the_same_episodes_as_a_set(data: st.DataObject) -> None:
    total = Pending()
    episodes = SceneEpisodes(ScenePlan("s", 12, False, 12), total)
    model, taken = set(range(12)), set[int]()
    for _ in range(data.draw(st.integers(0, 30))):
        match data.draw(st.sampled_from(["take", "one", "back"])):
            case "take":
                got = set(indexes(episodes.take(data.draw(st.integers(1, 5)))))
                assert got <= model
                model -= got
                taken |= got
            case "one":
                index = data.draw(st.integers(0, 11))
                assert episodes.take_one(index) == (index in model)
                model.discard(index)
                taken.add(index)
            case "back" if taken:
                index = data.draw(st.sampled_from(sorted(taken)))
                taken.discard(index)
                model.add(index)
                episodes.put_back(index)
        assert episodes.pending_count == total.episodes == len(model)
        assert ("s" in total.scenes) == bool(model)
    assert set(indexes(episodes.take(99))) == model
