"""The messages between a daemon and its compute workers: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, WorkerId
from nimbusd.transport.messages import local as m
from tests.support.message_strategies import messages_of

ANY_MESSAGE: st.SearchStrategy[m.Message] = st.one_of([messages_of(cls) for cls in m.CODEC.messages])


@pytest.mark.parametrize("cls", m.CODEC.messages, ids=lambda cls: cls.__name__)
@given(st.data())
def test_every_message_comes_back_equal(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    assert m.decode(m.encode(message)) == message


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(frame: bytes) -> None:
    with pytest.raises(m.MessageError):
        m.decode(frame)


@given(ANY_MESSAGE, st.data())
def test_a_flipped_byte_never_raises_anything_but_message_error(message: m.Message, data: st.DataObject) -> None:
    frame = bytearray(m.encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(m.MessageError):
        m.decode(bytes(frame))


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"v": 99, "t": "Leave", "b": {}}, "version 99"),
        ({"v": 2, "t": "Nonsense", "b": {}}, "Nonsense"),
        ({"v": 2, "t": ["Leave"], "b": {}}, "unknown message type"),
        ({"v": 2, "t": "Leave", "b": []}, "not an envelope"),
        ({"v": 2, "t": "Leave", "b": {}, "x": 1}, "not an envelope"),
        ({"v": 2, "t": "WorkerPulls", "b": {"worker": "cpu:0"}}, "credit"),
        ({"v": 2, "t": "WorkerPulls", "b": {"worker": "cpu:0", "credit": "1"}}, "WorkerPulls.credit: expected int"),
        ({"v": 2, "t": "WorkerPulls", "b": {"worker": "cpu:0", "credit": True}}, "WorkerPulls.credit: expected int"),
        ({"v": 2, "t": "MakeEpisode", "b": {"worker": "x", "attempt": 3}}, "MakeEpisode.attempt: expected a map"),
        ({"v": 2, "t": "WorkerReturns", "b": {"worker": "x", "attempts": 3}}, "expected a list"),
    ],
)
def test_wrong_envelopes_are_refused_with_the_field_that_is_wrong(envelope: dict[str, object], said: str) -> None:
    with pytest.raises(m.MessageError, match=said):
        m.decode(msgpack.packb(envelope))


def test_oversized_messages_are_refused_on_both_sides() -> None:
    message = m.Fatal(WorkerId("cpu:0"), JobId("house"), "x" * (m.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(m.MessageError, match="limit"):
        m.encode(message)
    with pytest.raises(m.MessageError, match="limit"):
        m.decode(b"\0" * (m.MAX_JOB_BYTES + 1))


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.WorkerPulls(WorkerId("cpu:0"), 1).credit = 2  # type: ignore[misc]
