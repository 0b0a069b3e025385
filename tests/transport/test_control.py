"""The control messages and their codec: what goes in comes out, nothing else gets in, and versions can differ."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tracemalloc
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span
from nimbusd.transport.codec.codec import MAX_DEPTH, MAX_MESSAGE_BYTES, Codec, MessageError, VersionError
from nimbusd.transport.messages import control as c
from tests.support.fuzz_frames import fuzz_decoder
from tests.support.message_strategies import messages_of

ANY_MESSAGE: st.SearchStrategy[c.Message] = st.one_of([messages_of(cls) for cls in c.MESSAGES])
HEARTBEAT = c.Heartbeat(
    NodeId("n1"), "s", 1, 2, (LeaseId(3), LeaseId(4)), (c.Running(LeaseId(3), 0, "plan", 1.5),), c.Load(0.5, 1, 2)
)


def packed(kind: str, body: Any, version: Any = c.PROTOCOL_VERSION) -> bytes:
    frame: bytes = msgpack.packb({"v": version, "t": kind, "b": body})
    return frame


def body_of(message: Any) -> dict[str, Any]:
    return dataclasses.asdict(message)


@pytest.mark.parametrize("cls", c.MESSAGES, ids=lambda cls: cls.__name__)
@given(st.data())
def test_every_message_comes_back_equal(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    assert c.decode(c.encode(message)) == message


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else(frame: bytes) -> None:
    with pytest.raises(MessageError):
        c.decode(frame)


@given(ANY_MESSAGE, st.data())
def test_a_changed_frame_never_raises_anything_but_message_error(message: c.Message, data: st.DataObject) -> None:
    frame = bytearray(c.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not frame:
            break
    with contextlib.suppress(MessageError):
        c.encode(c.decode(bytes(frame)))  # what got in is a real message


@given(st.sampled_from(c.MESSAGES), st.data())
def test_bodies_of_any_shape_never_raise_anything_but_message_error(cls: type[Any], data: st.DataObject) -> None:
    odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=3)
    names = [field.name for field in dataclasses.fields(cls)]
    body = {name: data.draw(odd | st.dictionaries(st.text(max_size=3), odd, max_size=2)) for name in names}
    frame = b""
    with contextlib.suppress(OverflowError):  # integers that msgpack cannot say
        frame = packed(cls.__name__, body)
    with contextlib.suppress(MessageError):
        c.decode(frame)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seq": None}, "Heartbeat.seq: expected int, got NoneType"),
        ({"seq": 2**63}, "Heartbeat.seq: expected int, got one out of range"),
        ({"held": "ab"}, "Heartbeat.held: expected a list, got str"),
        ({"held": [1, "2"]}, "Heartbeat.held: expected only int in it"),
        ({"held": [1, True]}, "Heartbeat.held: expected only int in it"),
        ({"held": [2**64 - 1]}, "Heartbeat.held: expected only int in it"),
        ({"running": [3]}, "Heartbeat.running: expected a map, got int"),
        ({"running": [{"lease": 3, "index": 0, "stage": "plan"}]}, "Running: the fields elapsed_s are missing"),
        ({"load": {"cpu": float("nan"), "memory_used_bytes": 1, "memory_total_bytes": 1}}, "Load.cpu: expected float"),
        ({"load": {"cpu": float("inf"), "memory_used_bytes": 1, "memory_total_bytes": 1}}, "Load.cpu: expected float"),
        ({"color": "red"}, "Heartbeat: the fields 'color' are unknown"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        c.decode(packed("Heartbeat", body_of(HEARTBEAT) | change))


@pytest.mark.parametrize("spans", [[[1, 2, 3]], [[1]], [1], [["a", 2]]])
def test_spans_are_pairs_of_integers(spans: Any) -> None:
    lease = body_of(c.Lease(NodeId("n"), LeaseId(1), JobId("job"), "scene", 1, (Span(0, 1),)))
    with pytest.raises(MessageError, match=r"Lease\.spans"):
        c.decode(packed("Lease", lease | {"spans": spans}))


def test_missing_fields_that_have_a_default_take_it() -> None:
    body = body_of(HEARTBEAT)
    del body["load"]
    assert c.decode(packed("Heartbeat", body)) == dataclasses.replace(HEARTBEAT, load=None)
    stored = {"index": 1, "folder": "f", "frames": 1, "size_bytes": 1, "digest": "d" * 64, "cost_s": 1}
    commit = {"node": "n", "lease": 1, "job": "j", "scene": "s", "attempt": 1, "stored": [stored, stored]}
    first, second = c.decode(packed("Commit", commit)).stored  # type: ignore[union-attr]
    assert first.timings_s == {}
    assert first.timings_s is not second.timings_s


def test_another_version_is_told_with_the_number_of_the_request() -> None:
    with pytest.raises(VersionError, match=r"protocol version 9, this side speaks version 3") as caught:
        c.decode(packed("Submit", {"request": 7, "new": True}, version=9))
    assert (caught.value.version, caught.value.request) == (9, 7)
    for version in (None, "1", 1.0, True, [1]):
        with pytest.raises(VersionError) as caught:
            c.decode(packed("NotHereYet", {"request": "7"}, version=version))
        assert caught.value.request == 0


def test_a_refusal_is_understood_whatever_version_the_peer_speaks() -> None:
    refused = c.Refused(7, "bad_version", "too old")
    assert c.decode(packed("Refused", body_of(refused) | {"since": "v9"}, version=9)) == refused
    with pytest.raises(MessageError, match="code"):
        c.decode(packed("Refused", {"request": 7}, version=9))
    with pytest.raises(MessageError, match="since"):
        c.decode(packed("Refused", body_of(refused) | {"since": "v1"}))


def test_a_lease_that_is_too_large_names_its_scene() -> None:
    entry = {"path": "x" * c.MAX_LEASE_BYTES}
    lease = c.Lease(NodeId("n"), LeaseId(1), JobId("house"), "kitchen_03", 1, (Span(0, 5),), entry)
    with pytest.raises(MessageError, match=r"scene 'kitchen_03'\) is \d+ bytes; the limit is 4096"):
        c.encode(lease)
    with pytest.raises(MessageError, match="Lease of"):
        c.decode(packed("Lease", body_of(lease)))


def test_jobs_may_be_larger_than_other_messages() -> None:
    spec = {"scenes": [{"id": f"scene_{i}", "path": "p" * 200} for i in range(6000)]}
    submit = c.Submit(1, spec, "ann")
    assert len(c.encode(submit)) > MAX_MESSAGE_BYTES
    assert c.decode(c.encode(submit)) == submit
    with pytest.raises(MessageError, match="limit"):
        c.encode(c.Bye(NodeId("n1"), "s", "x" * MAX_MESSAGE_BYTES))
    with pytest.raises(MessageError, match="limit"):
        c.decode(packed("Bye", body_of(c.Bye(NodeId("n1"), "s", "x" * MAX_MESSAGE_BYTES))))
    with pytest.raises(MessageError, match="limit"):
        c.decode(b"\0" * (c.MAX_JOB_BYTES + 1))


def test_what_cannot_be_packed_is_told_with_its_message() -> None:
    with pytest.raises(MessageError, match=r"Bye \(node 'n1'\) cannot be packed"):
        c.encode(c.Bye(NodeId("n1"), "s", "file \udcff"))
    with pytest.raises(MessageError, match="cannot be packed"):
        c.encode(c.JobSpec(JobId("j"), {"x": {1, 2}}))
    with pytest.raises(MessageError, match="no message of this protocol"):
        c.encode("Hello")  # type: ignore[arg-type]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [nested(MAX_DEPTH), nested(500), {1: 2}, {b"k": 1}, b"bytes", msgpack.ExtType(4, b"x"), msgpack.Timestamp(1)],
    ids=["too_deep", "far_too_deep", "number_key", "bytes_key", "bytes", "extension", "timestamp"],
)
def test_free_form_fields_hold_what_json_can_say_and_not_too_deep(value: Any) -> None:
    with pytest.raises(MessageError):
        c.decode(packed("JobSpec", {"job": "j", "spec": {"x": value}}))


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff" * 200,  # lists in lists, each of 2**32 - 1 items
        b"\xdd\x00\x00\x03\xe8" * 200,  # as many as the frame has bytes
        b"\xdd\x00\x00\xff\xff" * 200_000,
        b"\xdc\xff\xff" * 300_000,
        b"\xdf\xff\xff\xff\xff" * 200,
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
    ],
    ids=[
        "lists",
        "lists_that_could_be",
        "many_long_lists",
        "many_short_lists",
        "maps",
        "text",
        "bytes",
        "extension",
        "depth",
    ],
)
def test_lengths_that_are_only_announced_take_no_memory(frame: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(MessageError):
        c.decode(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_errors_do_not_repeat_what_a_stranger_sent_at_length() -> None:
    for frame in (packed("T" * 10_000, {}), packed("Bye", {"k" * 10_000: 1}), packed("Bye", {}, version="v" * 10_000)):
        with pytest.raises(MessageError) as caught:
            c.decode(frame)
        assert len(str(caught.value)) < 400


@dataclass(frozen=True, slots=True)
class _Bad:
    when: set[int]


def test_a_message_class_with_fields_that_cannot_travel_is_noticed_at_once() -> None:
    with pytest.raises(TypeError, match=r"_Bad\.when: messages cannot have fields of type set"):
        Codec((_Bad,), version=1)


def test_the_fuzz_programs_damage_is_refused_or_understood() -> None:
    counts = fuzz_decoder(random.Random(7), rounds=20_000)
    assert counts["frames"] == counts["accepted"] + counts["refused"] == 20_000
    assert min(counts["accepted"], counts["refused"]) > 300


def test_a_request_that_is_malformed_can_be_refused_by_its_number() -> None:
    with pytest.raises(MessageError, match="color") as caught:
        c.decode(packed("Nodes", {"request": 7, "color": "red"}))
    assert caught.value.request == 7
    for request in ("7", -7, 2**64 - 1, None, True):
        with pytest.raises(MessageError) as caught:
            c.decode(packed("Nodes", {"request": request, "color": "red"}))
        assert caught.value.request == 0
