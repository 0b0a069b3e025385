"""A client's requests: which are outstanding, late, or worth repeating."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nimbusd.transport.client.requests import REPEAT_AFTER_S, RequestTable
from nimbusd.transport.messages import control


@given(st.lists(st.tuples(st.sampled_from(["ask", "send", "lose", "answer"]), st.floats(0.0, 4.0)), max_size=40))
def test_a_request_is_outstanding_until_it_is_answered_or_late_and_due_only_when_a_repeat_helps(
    story: list[tuple[str, float]],
) -> None:
    table = RequestTable()
    now, timeout_s = 0.0, 10.0
    open_until: dict[int, float] = {}
    sent_at: dict[int, float] = {}
    for what, passed_s in story:
        now += passed_s
        for late in table.expired(now):
            assert open_until.pop(late.number) <= now
            sent_at.pop(late.number, None)
        assert {request.number for request in table.all()} == set(open_until)
        due = {request.number for request in table.due(now)}
        assert due == {n for n in open_until if n not in sent_at or sent_at[n] + REPEAT_AFTER_S <= now}
        match what:
            case "ask":
                request = table.ask(control.Nodes, now, timeout_s)
                assert request.number not in open_until
                open_until[request.number] = now + timeout_s
            case "send":
                for number in due:
                    table.sent(number, now)
                    sent_at[number] = now
            case "lose":
                table.reconnected()
                sent_at.clear()
            case _ if open_until:
                number = min(open_until)
                assert table.settle(number) is not None
                assert table.settle(number) is None
                del open_until[number]
                sent_at.pop(number, None)
        if open_until:
            assert table.next_at(connected=False) == min(open_until.values())


def test_a_long_look_at_the_master_is_not_repeated_while_it_may_rightly_take_so_long() -> None:
    table = RequestTable()
    watch = table.ask(lambda number: control.Watch(number, wait_s=60.0), 0.0, 10.0, patience_s=60.0)
    table.sent(watch.number, 0.0)
    assert not table.due(62.0)
    assert table.due(60.0 + REPEAT_AFTER_S)
    assert table.next_at(connected=True) == 60.0 + REPEAT_AFTER_S
    assert not table.expired(69.0)
    assert table.expired(70.0)
