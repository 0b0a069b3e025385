"""Limits of what a node or a client may say: messages outside the bounds of their types are malformed."""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId
from nimbusd.transport.codec.codec import Codec, MessageError
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import SLACK, Keys, Length, Letters, Printable, Range, plain_line, plain_text
from tests.support.message_strategies import messages_of

STORED = c.Stored(0, "job__s__000000.1", 1, 1, "0" * 64, 1.0, {"plan": 1.0})
COMMIT = c.Commit(NodeId("n"), LeaseId(1), JobId("job"), "s", 1, (STORED,))
ATTEMPT = Attempt(EpisodeKey(JobId("job"), "s", 0), 1, LeaseId(1))
FAIL = c.Fail(NodeId("n"), ATTEMPT, c.Failure("plan", "error", "why", "stack"), 1.0)
HELLO = c.Hello(NodeId("n"), "s", "0.1", "env", {"numpy": "2"}, 1, ("cpu",))
BEAT = c.Heartbeat(NodeId("n"), "s", 1, 1, (LeaseId(1),), (c.Running(LeaseId(1), 0, "plan", 1.0),), c.Load(0.5, 1, 2))
FAILED = {"stage": "plan", "reason": "error", "detail": "why", "evidence": "stack", "kind": "counted"}
PIPELINE = dataclasses.asdict(c.PipelineReport(JobId("job"), "fused", 1, 1, *[0] * 11))


@dataclass(frozen=True, slots=True)
class Bounded:
    number: Annotated[int, Range(-3, 3)]
    share: Annotated[float, Range(0, 1)]
    name: Annotated[str, Length(4, least=1), Printable()]
    digest: Annotated[str, Letters("[ab]{2}", "two letters")]
    many: Annotated[tuple[Annotated[int, Range(0, 9)], ...], Length(3)]
    pairs: Annotated[dict[str, Annotated[float, Range(0, 1)]], Length(2), Keys(Length(2))]


CODEC: Codec[Bounded] = Codec((Bounded,), version=c.PROTOCOL_VERSION)
ANY = st.integers(-9, 9) | st.floats() | st.text(max_size=6) | st.lists(st.integers(-2, 12), max_size=5)


def packed(kind: str, body: Any) -> bytes:
    frame: bytes = msgpack.packb({"v": c.PROTOCOL_VERSION, "t": kind, "b": body})
    return frame


def within(b: dict[str, Any]) -> bool:
    """The same bounds in plain words, to compare with."""
    return (
        type(b["number"]) is int
        and -3 <= b["number"] <= 3
        and type(b["share"]) in (int, float)
        and 0 <= b["share"] <= 1
        and type(b["name"]) is str
        and 1 <= len(b["name"]) <= 4
        and b["name"].isprintable()
        and type(b["digest"]) is str
        and len(b["digest"]) == 2
        and set(b["digest"]) <= set("ab")
        and type(b["many"]) is list
        and len(b["many"]) <= 3
        and all(0 <= item <= 9 for item in b["many"])
        and len(b["pairs"]) <= 2
        and all(len(key) <= 2 and 0 <= value <= 1 for key, value in b["pairs"].items())
    )


@given(
    st.fixed_dictionaries(
        {
            "number": st.integers(-5, 5) | ANY,
            "share": st.floats(-0.5, 1.5) | ANY,
            "name": st.text(max_size=6) | ANY,
            "digest": st.text("abc", max_size=3),
            "many": st.lists(st.integers(-1, 10), max_size=4),
            "pairs": st.dictionaries(st.text(max_size=3), st.floats(-0.5, 1.5), max_size=3),
        }
    )
)
def test_a_message_is_taken_exactly_if_all_of_it_is_within_its_bounds(body: dict[str, Any]) -> None:
    try:
        taken = CODEC.decode(packed("Bounded", body))
    except MessageError:
        assert not within(body)
        return
    assert within(body)
    assert CODEC.decode(CODEC.encode(taken)) == taken


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (COMMIT, {"attempt": -1}),
        (COMMIT, {"lease": -1}),
        *(
            (COMMIT, {"stored": [dataclasses.asdict(STORED) | odd]})
            for odd in (
                {"size_bytes": 2**63 - 1},
                {"size_bytes": -1},
                {"frames": 2**62},
                {"index": -1},
                {"index": 2**40},
                {"cost_s": -1.0},
                {"cost_s": 1e300},
                {"cost_s": float("nan")},
                {"digest": "x"},
                {"digest": "0" * 63 + "\n"},
                {"folder": "f" * 256},
                {"timings_s": {"plan": float("inf")}},
                {"timings_s": {str(i): 1.0 for i in range(100)}},
            )
        ),
        (FAIL, {"failure": FAILED | {"evidence": "x" * 100_000}}),
        (FAIL, {"failure": FAILED | {"detail": "x" * 10_000}}),
        (FAIL, {"failure": FAILED | {"kind": "forgiven"}}),
        (FAIL, {"attempt": dataclasses.asdict(ATTEMPT) | {"number": -1}}),
        (FAIL, {"attempt": dataclasses.asdict(ATTEMPT) | {"lease": -1}}),
        (FAIL, {"cost_s": float("-inf")}),
        (HELLO, {"node": "evil\x1b[2J"}),
        (HELLO, {"node": ""}),
        (HELLO, {"node": "n\0"}),
        (HELLO, {"slots": 2**62}),
        (HELLO, {"version": "\x9b31m"}),
        (HELLO, {"packages": {"p": "x" * 1000}}),
        (HELLO, {"devices": ["cpu\r"]}),
        (BEAT, {"credit": -1}),
        (BEAT, {"credit": 2**60}),
        (BEAT, {"held": list(range(30_000))}),
        (BEAT, {"load": {"cpu": float("nan"), "memory_used_bytes": 1, "memory_total_bytes": 1}}),
        (BEAT, {"load": {"cpu": 0.5, "memory_used_bytes": -1, "memory_total_bytes": 1}}),
        (BEAT, {"pipelines": [PIPELINE | {"theory": float("inf")}]}),
        (BEAT, {"pipelines": [PIPELINE | {"backlog": -4}]}),
        (c.GiveBack(NodeId("n"), LeaseId(1), (0,)), {"indexes": [-1]}),
        (c.Watch(1), {"wait_s": float("nan")}),
        (c.Watch(1), {"cursor": "9" * 4000}),
        (c.MakeToken(1), {"ttl_s": 1e300}),
        (c.Failures(1, "job"), {"offset": -1}),
        (c.Submit(1, {}, "user"), {"priority": 2**62}),
        (c.Submit(1, {}, "user"), {"max_nodes": -1}),
        (c.Submit(1, {}, "user"), {"user": "u\x1b]0;title\x07"}),
        (c.Cancel(1, "job"), {"job": "j" * 5000}),
        (c.DrainNode(1, "n"), {"node": "n\n"}),
    ],
)
def test_what_no_honest_peer_says_is_malformed(message: c.Message, change: dict[str, Any]) -> None:
    body = msgpack.unpackb(c.encode(message))["b"]
    assert c.decode(packed(type(message).__name__, body)) == message
    with pytest.raises(MessageError):
        c.decode(packed(type(message).__name__, body | change))


@given(st.text(st.characters(), max_size=300), st.integers(8, 200))
def test_text_is_cut_and_cannot_steer_a_terminal(text: str, most: int) -> None:
    plain = plain_text(text, most)
    assert len(plain) <= most + SLACK
    assert not {letter for letter in plain if unicodedata.category(letter) == "Cc"} - {"\n", "\t"}
    plain.encode()
    line = plain_line(text, most)
    assert len(line) <= most
    assert line.isprintable()
    if text.isprintable() and len(text) <= most:
        assert plain == line == text


@given(st.text(st.characters(), max_size=40), st.integers(1, 900))
def test_whatever_a_users_program_prints_a_node_can_tell_of_it(text: str, times: int) -> None:
    failure = c.Failure(text, text * times, text * times, text * times).plain()
    message = c.decode(c.encode(c.Fail(NodeId("n"), ATTEMPT, failure)))
    assert isinstance(message, c.Fail)
    assert message.failure == failure
    assert failure.plain() == failure, "what was cut once stays as it is"


@given(messages_of(c.Commit))
def test_what_a_node_has_stored_comes_as_it_was_told(message: c.Commit) -> None:
    assert c.decode(c.encode(message)) == message
