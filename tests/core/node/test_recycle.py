"""Recycling of workers: leaks are found, caches and peaks are not taken for leaks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span, WorkerId
from nimbusd.core.node import facts as n
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.recycle import LASTING, LEAST_GROWTH_BYTES, MB, WARM_UP, WORTH_IT, RecycleLimits, WorkerMemory
from nimbusd.core.node.split import Mode
from nimbusd.transport.messages.node import Lease
from nimbusd.transport.messages.worker import MakeEpisode, WorkerPulls
from tests.support.node_facts import measured

GB = 1 << 30


def first_reason(memory: WorkerMemory, taken: list[int], gpu: list[int] | None = None) -> tuple[int, str] | None:
    """After which episode (from 1) the worker should go, and why."""
    for number, rss in enumerate(taken):
        if (reason := memory.measured(rss, gpu[number] if gpu else 0)) is not None:
            return number + 1, reason
    return None


def test_a_leak_of_100_mb_an_episode_is_stopped_soon_after_the_limit() -> None:
    found = first_reason(WorkerMemory(RecycleLimits()), [GB + 100 * MB * number for number in range(100)])
    assert found is not None
    episode, reason = found
    baseline = GB + 100 * MB * (WARM_UP - 1)
    assert GB + 100 * MB * (episode - 1) - baseline <= max(512 * MB, baseline // 2) + LASTING * 100 * MB
    assert reason.startswith("memory: grown by ")


def test_caches_that_fill_in_the_first_episodes_are_no_leak() -> None:
    taken = [GB, 3 * GB, 6 * GB, 8 * GB] + [8 * GB] * 500
    assert first_reason(WorkerMemory(RecycleLimits()), taken) is None


def test_a_peak_while_an_episode_is_stored_is_no_leak() -> None:
    taken = ([GB] * 10 + [4 * GB] * (LASTING - 1)) * 20
    assert first_reason(WorkerMemory(RecycleLimits()), taken) is None


def test_the_jobs_own_limit_goes_before_the_default() -> None:
    taken = [GB] * WARM_UP + [GB + 100 * MB] * 50
    assert first_reason(WorkerMemory(RecycleLimits()), taken) is None
    found = first_reason(WorkerMemory(RecycleLimits(growth_bytes=64 * MB)), taken)
    assert found == (WARM_UP + LASTING, "memory: grown by 100 MB to 1124 MB")


def test_a_worker_beyond_its_share_goes_even_in_its_first_episodes() -> None:
    found = first_reason(WorkerMemory(RecycleLimits(share_bytes=4 * GB)), [GB, 5 * GB])
    assert found == (2, "memory: 5120 MB, its share is 4096 MB")


def test_a_worker_that_was_always_beyond_its_share_stays_for_the_next_would_be_no_smaller() -> None:
    assert first_reason(WorkerMemory(RecycleLimits(share_bytes=4 * GB)), [5 * GB] * 100) is None


def test_gpu_memory_leaks_too() -> None:
    gpu = [10 * GB] * WARM_UP + [16 * GB] * 10
    found = first_reason(WorkerMemory(RecycleLimits()), [GB] * len(gpu), gpu)
    assert found == (WARM_UP + LASTING, "GPU memory: grown by 6144 MB to 16384 MB")
    found = first_reason(WorkerMemory(RecycleLimits(gpu_share_bytes=12 * GB)), [GB] * len(gpu), gpu)
    assert found == (WARM_UP + 1, "GPU memory: 16384 MB, its share is 12288 MB")


def test_where_gpu_memory_is_not_known_only_the_rest_counts() -> None:
    assert first_reason(WorkerMemory(RecycleLimits(gpu_share_bytes=1)), [GB] * 100) is None


@given(level=st.integers(50 * MB, 64 * GB), noise=st.lists(st.integers(0, LEAST_GROWTH_BYTES), max_size=60))
def test_nobody_is_recycled_whose_memory_stays_within_the_least_growth(level: int, noise: list[int]) -> None:
    assert first_reason(WorkerMemory(RecycleLimits()), [level + more for more in noise]) is None


@given(
    start=st.integers(50 * MB, 8 * GB),
    leak=st.integers(1 * MB, 500 * MB),
    growth=st.none() | st.integers(1 * MB, 4 * GB),
)
def test_every_leak_is_found_once_it_has_grown_past_its_limit(start: int, leak: int, growth: int | None) -> None:
    memory, taken, episode = WorkerMemory(RecycleLimits(growth)), start, 0
    baseline = start + (WARM_UP - 1) * leak
    allowed = max(512 * MB, baseline // 2) if growth is None else growth
    while memory.measured(taken) is None:
        episode, taken = episode + 1, taken + leak
        assert taken <= baseline + allowed + (LASTING + 1) * leak
    assert taken > baseline + allowed


@given(taken=st.lists(st.integers(1, 8 * GB), min_size=1, max_size=30), share=st.integers(1, 8 * GB))
def test_beyond_its_share_a_worker_goes_exactly_if_it_was_once_so_much_smaller(taken: list[int], share: int) -> None:
    memory = WorkerMemory(RecycleLimits(growth_bytes=1 << 60, share_bytes=share))
    for number, now in enumerate(taken):
        smallest = min(taken[: number + 1])
        assert (memory.measured(now) is not None) == (now > share and now - smallest > WORTH_IT * smallest)


def test_a_worker_that_has_grown_too_large_is_recalled_once_and_gets_nothing_more() -> None:
    worker = WorkerId("cpu:0#1")
    node = NodeMachine(NodeId("n"), "s", 1)
    node.handle(n.JobKnown(JobId("j"), Mode.FUSED, recycle_growth_bytes=10 * MB), 0.0)
    node.handle(n.WorkerWaits(worker), 0.0)
    node.handle(Lease(NodeId("n"), LeaseId(1), JobId("j"), "a", 1, (Span(0, 40),)), 0.0)
    node.settle(0.0)
    orders: list[n.NodeOrder] = []
    for index in range(WARM_UP + LASTING + 2):
        node.handle(WorkerPulls(worker, 1), 1.0)
        given = [order for order in node.settle(1.0) if isinstance(order, MakeEpisode)]
        assert bool(given) == (not orders)
        taken = GB if index < WARM_UP else GB + 11 * MB
        orders += node.handle(measured(worker, taken), 1.0)
    assert orders == [n.RecallWorker(worker, "memory: grown by 11 MB to 1035 MB")]
