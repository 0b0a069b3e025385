"""Stored pieces that a node tells of now, and those that wait for company."""

from __future__ import annotations

from nimbusd.core.ids import LeaseId
from nimbusd.core.node.commits import GATHER_S, Commits

ONE, TWO = LeaseId(1), LeaseId(2)


def test_a_piece_is_told_at_once_where_nothing_waits_for_an_answer() -> None:
    commits: Commits[str] = Commits()
    commits.stored(ONE, "a")
    assert list(commits.due(0.0)) == [(ONE, ("a",))]
    assert list(commits.due(0.0)) == []


def test_what_is_stored_while_a_commit_is_under_way_is_told_together_after_its_answer() -> None:
    commits: Commits[str] = Commits()
    commits.stored(ONE, "a")
    assert list(commits.due(0.0))
    commits.stored(ONE, "b")
    commits.stored(ONE, "c")
    assert list(commits.due(0.01)) == []
    commits.answered(ONE)
    assert list(commits.due(0.01)) == [(ONE, ("b", "c"))]


def test_leases_do_not_wait_for_each_other() -> None:
    commits: Commits[str] = Commits()
    commits.stored(ONE, "a")
    assert list(commits.due(0.0))
    commits.stored(TWO, "b")
    assert list(commits.due(0.01)) == [(TWO, ("b",))]


def test_a_piece_waits_for_no_answer_longer_than_a_moment() -> None:
    commits: Commits[str] = Commits()
    commits.stored(ONE, "a")
    assert list(commits.due(0.0))
    commits.stored(ONE, "b")
    assert list(commits.due(0.9 * GATHER_S)) == []
    assert list(commits.due(GATHER_S)) == [(ONE, ("b",))]


def test_what_was_repeated_is_not_told_once_more() -> None:
    commits: Commits[str] = Commits()
    commits.stored(ONE, "a")
    commits.repeated(ONE, 0.0)
    assert list(commits.due(1.0)) == []


def test_nothing_is_remembered_of_a_lease_that_is_answered_or_over() -> None:
    commits: Commits[str] = Commits()
    for lease in (ONE, TWO):
        commits.stored(lease, "a")
    assert len(commits) == 2
    assert list(commits.due(0.0))
    commits.answered(ONE)
    commits.stored(TWO, "b")
    commits.forget(TWO)
    assert len(commits) == 0
