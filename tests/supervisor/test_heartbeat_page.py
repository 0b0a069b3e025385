"""The heartbeat page: what is written is what is read, by any process, half-way through any change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nimbusd.stages.stage_names import STAGES as STAGES_OF_AN_EPISODE
from nimbusd.supervisor.page import DAEMON, FIRST_WORKER, LINE_BYTES, STAGES, HeartbeatPage, PageError
from nimbusd.supervisor.watchdog import STALL_S, Mercy, judge

S = 10**9


@given(st.sampled_from(STAGES), st.floats(0.001, 1e5), st.integers(0, 2**62))
def test_a_beat_is_read_as_it_was_written(stage: str, allowance_s: float, now_ns: int) -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    line.work.owe(stage, allowance_s, now_ns)
    owed = line.working()
    assert owed.stage == stage
    assert owed.deadline_ns == now_ns + int(allowance_s * 1e9)
    assert owed.allowance_s == pytest.approx(allowance_s, abs=0.001)
    assert owed.counter == 1
    line.work.rest()
    assert line.working().deadline_ns == 0


def test_a_line_can_be_in_every_stage_of_an_episode_in_their_order() -> None:
    assert [stage for stage in STAGES if stage in STAGES_OF_AN_EPISODE] == list(STAGES_OF_AN_EPISODE)


def test_a_line_is_a_cache_line_and_neighbours_do_not_touch() -> None:
    page = HeartbeatPage.create(3)
    for number in range(FIRST_WORKER, page.lines):
        page.line(number).prepare("start", number, 0)
        page.line(number).occupy(1000 + number, number)
    assert [line.occupant() for line in page.workers()] == [(1000 + n, n, 1) for n in range(FIRST_WORKER, page.lines)]
    assert page.line(DAEMON).occupant() is None
    assert os.fstat(page.fd).st_size == LINE_BYTES * (1 + page.lines)


def test_a_place_that_is_left_and_taken_again_is_of_another_generation() -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    first = line.prepare("start", 1.0, 0)
    line.occupy(10, 5)
    line.store.owe("store", 1.0, 0)
    line.limit_episode(7)
    line.vacate()
    assert line.occupant() is None
    assert line.prepare("start", 1.0, 0) > first
    assert line.storing().deadline_ns == line.episode_deadline_ns() == 0


def test_another_process_sees_what_we_write_and_we_what_it_writes() -> None:
    page = HeartbeatPage.create(1)
    line = page.line(FIRST_WORKER)
    line.prepare("start", 1.0, 0)
    script = (
        "import sys; from nimbusd.supervisor.page import own_line; line = own_line(int(sys.argv[1]), 2);"
        "print(line.working().stage); line.work.owe('render', 2.5, 10**9)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(page.fd)], pass_fds=[page.fd], capture_output=True, text=True, check=True
    )
    assert run.stdout == "start\n"
    assert (line.working().stage, line.working().deadline_ns) == ("render", 3_500_000_000)


def test_what_is_no_page_is_refused() -> None:
    fd = os.memfd_create("other")
    os.write(fd, b"something else".ljust(4096))
    with pytest.raises(PageError, match="no heartbeat page"):
        HeartbeatPage(fd)
    os.close(fd)
    page = HeartbeatPage.create(1)
    with pytest.raises(PageError, match="lines 0 to 2"):
        page.line(3)


def test_no_process_can_shrink_the_page_under_the_others() -> None:
    page = HeartbeatPage.create(1)
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, 0)


def test_a_reader_never_sees_a_deadline_that_nobody_wrote() -> None:
    """Two deadlines that differ in every byte, written in turn by one thread and read by another."""
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    written = {0x0101010101010101, 0x7E7E7E7E7E7E7E7E}
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for value in written:
                line.limit_episode(value)

    line.limit_episode(min(written))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {line.episode_deadline_ns() for _ in range(100_000)} <= written
    finally:
        done.set()
        writer.join()


# --- what the watchdog makes of a line ---


def test_whoever_owes_nothing_is_never_overdue() -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    line.work.owe("render", 1.0, 0)
    line.work.rest()
    assert judge(line, 2**62) is None


def test_each_thread_and_the_episode_is_held_to_its_own_deadline() -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    line.work.owe("render", 5.0, 0)
    line.store.owe("store", 2.0, 0)
    line.limit_episode(7 * S)
    assert judge(line, 2 * S) is None
    store = judge(line, 3 * S)
    assert store is not None
    assert (store.reason, store.overdue_s) == ("no progress in stage store for 2 s", 1.0)
    line.store.rest()
    assert judge(line, 5 * S) is None
    render = judge(line, 6 * S)
    assert render is not None
    assert render.stage == "render"
    line.work.owe("render", 5.0, 6 * S)
    episode = judge(line, 8 * S)
    assert episode is not None
    assert episode.reason == "an episode took longer than the job allows"


def test_a_thread_is_alone_to_blame_where_the_other_owes_nothing_or_went_on() -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)

    def alone(now_ns: int) -> bool:
        verdict = judge(line, now_ns)
        assert verdict is not None
        assert verdict.stage == "render"
        return verdict.alone

    line.work.owe("render", 4.0, 0)
    assert alone(5 * S), "the writer thread has nothing to do"
    line.store.owe("store", 60.0, 1 * S)
    assert not alone(5 * S), "either may hold the GIL"
    line.store.owe("store", 60.0, 3 * S)
    assert alone(5 * S)


def test_an_episode_that_takes_too_long_is_alone_to_blame_where_its_worker_goes_on() -> None:
    line = HeartbeatPage.create(1).line(FIRST_WORKER)
    line.limit_episode(7 * S)
    line.work.owe("render", 60.0, 0)
    line.store.owe("store", 60.0, 0)
    for beaten_ns, expected in ((0, False), (7 * S, True)):
        line.work.owe("render", 60.0, beaten_ns)
        verdict = judge(line, int(7.5 * S))
        assert verdict is not None
        assert verdict.alone is expected


def test_after_the_machine_stood_still_workers_get_as_long_again() -> None:
    mercy, now = Mercy(0), 0
    for _ in range(100):
        now += S // 10
        assert not mercy.due(now)
    now += int(4 * STALL_S * S)
    assert mercy.due(now)
    while now < 18 * S - S // 10:
        now += S // 10
        assert mercy.due(now) == (now < 18 * S)
    now += S // 5
    assert not mercy.due(now)
