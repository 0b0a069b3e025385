"""Deadlines that are learned: never above the job's limit, never below the floor, never below what was well before."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from nimbusd.compute.deadlines import Deadlines, Quantiles
from nimbusd.compute.progress import SharedPulse, ThreadProgress
from nimbusd.supervisor.page import FIRST_WORKER, HeartbeatPage

durations = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=300)


@given(durations, st.floats(0.01, 1.0))
def test_a_quantile_is_an_upper_bound_and_at_most_10_percent_too_large(values: list[float], share: float) -> None:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    exact = next(v for v in sorted(values) if sum(w <= v for w in values) >= share * len(values))
    assert exact * (1 - 1e-9) <= quantiles.quantile_s(share) <= exact * 1.1 * (1 + 1e-9)


def test_old_durations_come_to_count_less() -> None:
    quantiles = Quantiles(most=100)
    for _ in range(99):
        quantiles.add(10.0)
    for _ in range(1000):
        quantiles.add(0.1)
    assert quantiles.quantile_s(0.5) < 0.12
    assert quantiles.longest_s == 10.0


def test_an_unknown_stage_has_the_jobs_limit_and_its_own_where_it_has_one() -> None:
    deadlines = Deadlines(120.0, {"plan": 5.0})
    assert deadlines.allowance_s("render") == 120.0
    assert deadlines.allowance_s("plan") == 5.0


def test_a_known_stage_has_a_multiple_of_its_usual_silence() -> None:
    deadlines = Deadlines(120.0, factor=20.0, enough=200)
    for _ in range(199):
        deadlines.learn("render", 1.0)
    assert deadlines.allowance_s("render") == 120.0
    deadlines.learn("render", 1.0)
    assert 20.0 <= deadlines.allowance_s("render") <= 22.0
    assert deadlines.allowance_s("plan") == 120.0


def test_one_long_silence_that_was_well_gives_room_at_once() -> None:
    deadlines = Deadlines(120.0, floor_s=1.0)
    for _ in range(300):
        deadlines.learn("plan", 0.001)
    assert deadlines.allowance_s("plan") == 1.0
    deadlines.learn("plan", 30.0)
    assert deadlines.allowance_s("plan") == 60.0


@given(st.floats(0.01, 300.0), durations)
def test_no_allowance_is_above_the_limit_or_below_the_floor_that_fits_in_it(limit_s: float, seen: list[float]) -> None:
    deadlines = Deadlines(limit_s, floor_s=10.0, enough=1)
    for silence_s in seen:
        deadlines.learn("render", silence_s)
        assert min(10.0, limit_s) <= deadlines.allowance_s("render") <= limit_s


# --- what a working thread makes of them ---


class Clock:
    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


def test_a_familiar_stage_is_held_to_what_was_learned_and_an_unfamiliar_one_is_not() -> None:
    line, clock = HeartbeatPage.create(1).line(FIRST_WORKER), Clock()
    progress, deadlines = ThreadProgress(line.work, clock), Deadlines(120.0, floor_s=2.0, enough=10)
    progress.begin("render", deadlines, familiar=True)
    for _ in range(20):
        clock.pass_s(0.01)
        progress.beat()
    assert line.working().deadline_ns == clock.ns + 2 * 10**9
    progress.begin("render", deadlines, familiar=False)
    assert line.working().deadline_ns == clock.ns + 120 * 10**9


def test_what_an_unfamiliar_stage_takes_teaches_nothing() -> None:
    line, clock = HeartbeatPage.create(1).line(FIRST_WORKER), Clock()
    progress, deadlines = ThreadProgress(line.work, clock), Deadlines(120.0, floor_s=2.0, enough=1)
    for _ in range(20):
        progress.begin("load", deadlines, familiar=False)
        clock.pass_s(50.0)
    progress.begin("load", deadlines, familiar=True)
    clock.pass_s(0.1)
    progress.beat()
    assert line.working().deadline_ns == clock.ns + 2 * 10**9


def test_a_beat_does_not_put_off_a_promise_or_end_a_rest() -> None:
    line, clock = HeartbeatPage.create(1).line(FIRST_WORKER), Clock()
    progress = ThreadProgress(line.work, clock)
    progress.promise("open", 60.0)
    promised = line.working().deadline_ns
    clock.pass_s(1.0)
    progress.beat()
    assert line.working().deadline_ns == promised
    progress.rest()
    progress.beat()
    assert line.working().deadline_ns == 0


def test_of_several_writer_threads_the_one_that_must_beat_first_is_shown() -> None:
    line, clock = HeartbeatPage.create(1).line(FIRST_WORKER), Clock()
    shared, deadlines = SharedPulse(line.store), Deadlines(10.0)
    first, second = ThreadProgress(shared.part(), clock), ThreadProgress(shared.part(), clock)
    first.begin("store", deadlines, familiar=False)
    firsts = line.storing().deadline_ns
    clock.pass_s(4.0)
    second.begin("store", deadlines, familiar=False)
    assert line.storing().deadline_ns == firsts, "the second one's beats do not hide a first one that hangs"
    first.beat()
    second.beat()
    assert line.storing().deadline_ns == clock.ns + 10 * 10**9
    first.rest()
    assert line.storing().deadline_ns == clock.ns + 10 * 10**9
    second.rest()
    assert line.storing().deadline_ns == 0
