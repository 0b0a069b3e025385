"""The message codec: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import typing

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.transport import messages as m

REF = st.builds(m.EpisodeRef, st.text(), st.integers(0, 2**40), st.integers(1, 2**20))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MESSAGES: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.Hello, st.text(), st.integers(0, 2**31), st.text()),
    st.builds(m.Welcome, st.dictionaries(st.text(), st.integers(0, 9)), st.text()),
    st.builds(m.Ready, st.text(), st.text()),
    st.builds(m.Pull, st.text(), st.integers(0, 99)),
    st.builds(m.Lease, REF, st.integers(0, 99)),
    st.builds(m.Beat, st.text(), REF, st.text()),
    st.builds(
        m.Commit, st.text(), REF, st.text(), st.integers(0, 99), st.integers(0, 99), st.text(),
        st.dictionaries(st.text(), NUMBERS),
    ),
    st.builds(
        m.Fail, st.text(), REF, st.text(), st.text(), st.text(), st.booleans(), st.text(),
        st.dictionaries(st.text(), NUMBERS),
    ),
    st.builds(m.GiveBack, st.text(), st.lists(REF, max_size=4).map(tuple)),
    st.builds(m.Fatal, st.text(), st.text()),
    st.builds(m.Bye, st.text()),
    st.just(m.Drain()),
)  # fmt: skip


@given(MESSAGES)
def test_every_message_comes_back_equal(message: m.Message) -> None:
    assert m.decode(m.encode(message)) == message


def test_every_message_type_is_tried_above() -> None:
    assert len(typing.get_args(m.Message)) == len(MESSAGES.original_strategies)  # type: ignore[attr-defined]


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(frame: bytes) -> None:
    with pytest.raises(m.MessageError):
        m.decode(frame)


@given(MESSAGES, st.data())
def test_a_flipped_byte_never_raises_anything_but_message_error(message: m.Message, data: st.DataObject) -> None:
    frame = bytearray(m.encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(m.MessageError):
        m.decode(bytes(frame))


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"v": 99, "t": "Drain", "b": {}}, "version 99"),
        ({"v": 1, "t": "Nonsense", "b": {}}, "Nonsense"),
        ({"v": 1, "t": ["Drain"], "b": {}}, "unknown message type"),
        ({"v": 1, "t": "Pull", "b": {"slot": "cpu:0"}}, "credit"),
        ({"v": 1, "t": "Pull", "b": {"slot": "cpu:0", "credit": "1"}}, "Pull.credit: expected int"),
        ({"v": 1, "t": "Pull", "b": {"slot": "cpu:0", "credit": True}}, "Pull.credit: expected int"),
        ({"v": 1, "t": "Lease", "b": {"episode": 3, "variant": 0}}, "Lease.episode"),
        ({"v": 1, "t": "GiveBack", "b": {"slot": "x", "episodes": 3}}, "expected a list"),
    ],
)
def test_wrong_envelopes_are_refused_with_the_field_that_is_wrong(envelope: dict[str, object], said: str) -> None:
    with pytest.raises(m.MessageError, match=said):
        m.decode(msgpack.packb(envelope))


def test_oversized_messages_are_refused_on_both_sides() -> None:
    message = m.Fatal("cpu:0", "x" * (m.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(m.MessageError, match="limit"):
        m.encode(message)
    with pytest.raises(m.MessageError, match="limit"):
        m.decode(b"\0" * (m.MAX_JOB_BYTES + 1))


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.Pull("cpu:0", 1).credit = 2  # type: ignore[misc]
