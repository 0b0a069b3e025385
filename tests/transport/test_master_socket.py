"""The master's socket and the link of a node, over real sockets: keys, roles, strangers and broken connections."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from nimbusd.core.ids import JobId, NodeId
from nimbusd.transport.codec import MAX_MESSAGE_BYTES
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.auth import Entry, Peer, PeerRole
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import generate
from nimbusd.transport.security.tokens import JoinToken
from nimbusd.transport.sockets.addresses import AddressError
from nimbusd.transport.sockets.master_socket import MasterSocket
from nimbusd.transport.sockets.node_link import NodeLink, enrol
from tests.support.linked_peers import (
    ANSWER,
    LOOPBACK,
    MASTER_KEYS,
    Link,
    Master,
    Waiter,
    encrypted,
    hello,
    linked,
    on_uvloop,
    secure,
    serving,
)
from tests.support.raw_peers import RawPeer, frame


@on_uvloop
async def test_on_this_machine_nodes_and_clients_need_no_keys() -> None:
    async with serving() as master, linked(master.addresses[0]) as link:
        assert await link.ask(hello("n1")) == ANSWER
        assert await link.ask(c.Nodes(7)) == c.Done(7)
        assert [peer.role for peer, _ in master.heard] == [PeerRole.LOCAL, PeerRole.LOCAL]
        assert link.troubles == []


@on_uvloop
async def test_a_key_tells_who_a_peer_is_and_what_it_may_say(tmp_path: Path) -> None:
    node, admin = generate(), generate()
    entries = Entry(PeerRole.NODE, "gpu-1", node.public), Entry(PeerRole.ADMIN, "ann", admin.public)
    async with encrypted(tmp_path, *entries) as (master, _):
        async with linked(master.addresses[0], **secure(node)) as link:
            assert await link.ask(hello("gpu-1")) == ANSWER
            assert await link.ask(hello("gpu-2")) == c.Refused(
                0, "forbidden", "the key of node gpu-1 may not speak for node 'gpu-2'"
            )
            refused = c.Refused(3, "forbidden", "a key of role node may not send Cancel")
            assert await link.ask(c.Cancel(3, "job")) == refused
        async with linked(master.addresses[0], **secure(admin)) as link:
            assert await link.ask(c.Cancel(4, "job")) == c.Done(4)
        assert [(peer.role, peer.name) for peer, _ in master.heard] == [
            (PeerRole.NODE, "gpu-1"),
            (PeerRole.ADMIN, "ann"),
        ]
        assert master.counters["forbidden"] == 2


@on_uvloop
async def test_an_unknown_key_is_told_so_counted_and_let_in_once_it_is_listed(tmp_path: Path) -> None:
    stranger = generate()
    async with encrypted(tmp_path) as (master, _), linked(master.addresses[0], **secure(stranger)) as link:
        trouble = await link.trouble()
        assert f"the master at {master.addresses[0]} refused this key: {stranger.public}" in trouble
        assert "nimbusctl token create" in trouble
        assert link.link.key_refused
        assert master.counters["wrong_key"] >= 1
        assert master.heard == []
        (tmp_path / "authorized").write_text(f"node gpu-1 {stranger.public}\n")
        assert await link.ask(hello("gpu-1")) == ANSWER
        assert link.link.trouble == ""


@on_uvloop
async def test_a_master_with_another_key_is_not_trusted(tmp_path: Path) -> None:
    keys, expected = generate(), generate()
    async with (
        encrypted(tmp_path, Entry(PeerRole.NODE, "gpu-1", keys.public)) as (master, _),
        linked(master.addresses[0], **secure(keys, expected)) as link,
    ):
        trouble = await link.trouble()
        assert f"it does not have the key {expected.public} that it is expected to have" in trouble
        await master.events.until(lambda: master.counters["bad_handshake"] > 0)
        assert link.connections == 0


@on_uvloop
async def test_a_peer_without_encryption_is_told_that_the_master_wants_it(tmp_path: Path) -> None:
    async with encrypted(tmp_path) as (master, _), linked(master.addresses[0]) as link:
        trouble = await link.trouble()
        assert "takes encrypted connections only, and no key is used here" in trouble
        await master.events.until(lambda: master.counters["bad_handshake"] > 0)
        assert link.connections == 0


@on_uvloop
async def test_nobody_there_is_told_and_tried_again() -> None:
    async with serving() as master:
        address = master.addresses[0]
    async with linked(address) as link:
        assert f"cannot reach the master at {address}; is it running" in await link.trouble()
        assert not link.link.send(hello("n1"))
        assert link.link.counters["unsent"] == 1
        async with serving(address):
            assert await link.ask(hello("n1")) == ANSWER


@on_uvloop
async def test_a_token_lets_one_node_in_which_then_needs_no_new_connection(tmp_path: Path) -> None:
    keys = generate()
    async with encrypted(tmp_path) as (master, gate):
        token = gate.make_token(master.addresses[0], MASTER_KEYS.public, 60.0)
        async with linked(master.addresses[0], **secure(keys)) as link:
            answer = await link.ask(hello("gpu-1"))
            assert isinstance(answer, c.Refused)
            assert f"does not know the key {keys.public}" in answer.error
            assert await link.ask(c.Enrol(2, "gpu-1", token.secret)) == c.Enrolled(2, "gpu-1")
            assert await link.ask(c.Enrol(3, "gpu-1", token.secret)) == c.Enrolled(3, "gpu-1")
            assert await link.ask(hello("gpu-1")) == ANSWER
        assert [message for _, message in master.heard] == [hello("gpu-1")]


@on_uvloop
async def test_joining_with_a_token_works_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    keys = generate()
    async with encrypted(tmp_path) as (master, gate):
        address = master.addresses[0]
        used, spare = (gate.make_token(address, MASTER_KEYS.public, 60.0) for _ in range(2))
        await enrol(used, "gpu-1", keys)
        await enrol(used, "gpu-1", keys)
        with pytest.raises(TransportError, match=r"refused node gpu-2: the join token was used by another node"):
            await enrol(used, "gpu-2", generate())
        with pytest.raises(TransportError, match=r"node gpu-1 has another key already; join under another name"):
            await enrol(spare, "gpu-1", generate())
        await enrol(spare, "gpu-2", generate())
        with pytest.raises(TransportError, match="takes no new nodes now: the token has expired or was used"):
            await enrol(spare, "gpu-3", generate())
    with pytest.raises(TransportError, match=r"could not join .* within 0\.5 s: cannot reach the master"):
        await enrol(JoinToken(address, MASTER_KEYS.public, "s", 0.0), "gpu-3", keys, timeout_s=0.5)


@on_uvloop
async def test_who_is_taken_off_the_list_is_cut_off_without_a_restart(tmp_path: Path) -> None:
    keys = generate()
    async with (
        encrypted(tmp_path, Entry(PeerRole.NODE, "gpu-1", keys.public)) as (master, gate),
        linked(master.addresses[0], **secure(keys)) as link,
    ):
        assert await link.ask(hello("gpu-1")) == ANSWER
        (tmp_path / "authorized").write_text("")
        gate.refresh()
        answer = await link.ask(hello("gpu-1"))
        assert isinstance(answer, c.Refused)
        assert "does not know the key" in answer.error


@on_uvloop
async def test_guests_and_nodes_cannot_make_the_master_unpack_large_messages(tmp_path: Path) -> None:
    node, guest = generate(), generate()
    job = c.JobSpec(JobId("j"), {"x": "x" * (MAX_MESSAGE_BYTES + 1)})
    async with encrypted(tmp_path, Entry(PeerRole.NODE, "gpu-1", node.public)) as (master, gate):
        gate.make_token(master.addresses[0], MASTER_KEYS.public, 60.0)
        for keys, message in ((node, job), (guest, c.Enrol(1, "gpu-2", "s" * 5000))):
            async with linked(master.addresses[0], **secure(keys)) as link:
                await link.connected()
                assert link.link.send(message)
                assert isinstance(await link.ask(c.Bye(NodeId("gpu-1"), "s", "")), c.Welcome | c.Refused)
        assert master.counters["oversized"] == 2


@on_uvloop
async def test_one_master_serves_its_own_machine_by_ipc_and_others_encrypted(tmp_path: Path) -> None:
    keys = generate()
    gate = Gate(tmp_path)
    gate.add(Entry(PeerRole.NODE, "gpu-1", keys.public))
    async with serving((f"ipc://{tmp_path}/m.sock", LOOPBACK), keys=MASTER_KEYS, gate=gate) as master:
        for address in master.addresses:
            async with linked(address, **secure(keys)) as link:
                assert await link.ask(hello("gpu-1")) == ANSWER
        assert {peer.role for peer, _ in master.heard} == {PeerRole.NODE, PeerRole.LOCAL}
        async with linked(f"ipc://{tmp_path}/m.sock") as link:
            answer = await link.ask(c.Enrol(1, "gpu-2", "s"))
            assert isinstance(answer, c.Refused)
            assert "needs no token" in answer.error


@on_uvloop
async def test_with_any_local_user_loopback_alone_goes_without_keys(tmp_path: Path) -> None:
    bind = (LOOPBACK, "tcp://0.0.0.0:*")
    async with serving(bind, keys=MASTER_KEYS, gate=Gate(tmp_path), any_local_user=True) as master:
        far, near = sorted(master.addresses)
        assert near.startswith("tcp://127.0.0.1:")
        async with linked(near) as link:
            assert await link.ask(hello("gpu-1")) == ANSWER
        async with linked(far.replace("0.0.0.0", "127.0.0.1")) as link:
            assert "no key is used here" in await link.trouble()


@on_uvloop
async def test_addresses_that_are_unsafe_or_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="keys only"):
        Master("tcp://0.0.0.0:*")
    with pytest.raises(AddressError, match="at least one"):
        Master(())
    with pytest.raises(AddressError, match="keys only"):
        Link("tcp://10.0.0.1:7600")
    with pytest.raises(TransportError, match="public key alone"):
        Link("tcp://10.0.0.1:7600", keys=generate())
    async with serving() as master:
        with pytest.raises(TransportError, match=f"cannot listen on {master.addresses[0]}: Address already in use"):
            Master(master.addresses[0])


# --- strangers ---


@on_uvloop
async def test_malformed_messages_are_counted_and_versions_refused_while_others_are_served() -> None:
    async with serving() as master, linked(master.addresses[0]) as node:
        assert await node.ask(hello("n1")) == ANSWER
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 1000
            stranger.connect(master.addresses[0])
            stranger.send(b"")
            stranger.send(b"\xc1" * 50)
            stranger.send(c.encode(c.SayHello(NodeId("n"))))
            stranger.send_multipart([b"", c.encode(hello("n2"))])
            stranger.send(msgpack.packb({"v": 9, "t": "Submit", "b": {"request": 7}}))
            stranger.send(msgpack.packb({"v": c.PROTOCOL_VERSION, "t": "Nodes", "b": {"request": 8, "color": "red"}}))
            await master.counts(received=7, malformed=4, forbidden=1, bad_version=1)
            assert await node.ask(hello("n1")) == ANSWER
            answers = {c.decode(stranger.recv()) for _ in range(3)}
        said = {answer.code: answer for answer in answers if isinstance(answer, c.Refused)}
        assert said["bad_version"].request == 7
        assert "this master speaks protocol version 3, you speak 9" in said["bad_version"].error
        assert "may not send SayHello" in said["forbidden"].error
        assert said["malformed"] == c.Refused(8, "malformed", "Nodes: the fields 'color' are unknown")


@on_uvloop
async def test_raw_peers_with_garbage_oversize_or_half_frames_harm_nobody() -> None:
    async with serving() as master, linked(master.addresses[0]) as node:
        address = master.addresses[0]
        assert await node.ask(hello("n1")) == ANSWER
        strangers = []
        for garbage in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 4, b"\0" * 4096, b"\xff" * 4096, b"\xff"):
            strangers.append(await RawPeer.connect(address))
            strangers[-1].write(garbage)  # some of it could be the beginning of an old ZMTP
        oversize = await RawPeer.shaken_hands(address)
        oversize.write(frame(b"", announced=1 << 40))
        await oversize.closed_by_the_other_side()
        half = await RawPeer.shaken_hands(address)
        half.write(frame(b"x" * 10, announced=1000))
        parts = await RawPeer.shaken_hands(address)
        parts.write(frame(b"x", flags=1) * 100)
        good = await RawPeer.shaken_hands(address)
        good.write(frame(c.encode(hello("n2"))))
        await master.events.until(lambda: len(master.heard) == 2)
        assert await node.ask(hello("n1")) == ANSWER
        assert [type(message) for _, message in master.heard] == [c.Hello] * 3
        for peer in (*strangers, half, parts, good):
            peer.close()


@on_uvloop
async def test_many_broken_connections_leave_nothing_behind() -> None:
    async with serving() as master, linked(master.addresses[0]) as node:
        assert await node.ask(hello("n1")) == ANSWER
        open_files = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            peer = await RawPeer.shaken_hands(master.addresses[0])
            peer.write(frame(b"x" * number, announced=1000 if number % 2 else None))
            peer.close()
        await master.events.until(lambda: master.counters["disconnected"] >= 200)
        assert await node.ask(hello("n1")) == ANSWER
        assert len(os.listdir("/proc/self/fd")) < open_files + 20
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@on_uvloop
async def test_what_strangers_send_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as master:
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.connect(master.addresses[0])
            for _ in range(500):
                stranger.send(b"x")
            await master.counts(malformed=500)
    assert len(caplog.records) == 1
    assert "dropped a message of local peer" in caplog.text


# --- sending, reading and connections that break ---


@on_uvloop
async def test_sending_to_who_has_gone_or_does_not_read_never_waits() -> None:
    async with serving() as master:
        slow = await RawPeer.shaken_hands(master.addresses[0])
        slow.write(frame(c.encode(hello("slow"))))
        await master.events.until(lambda: bool(master.heard))
        peer = master.heard[0][0]
        large = c.JobSpec(JobId("j"), {"x": "x" * 20_000})
        for _ in range(100_000):
            if not master.send(peer, large):
                break
        assert master.counters["backlogged"] == 1
        slow.close()
        async with asyncio.timeout(20):
            while not master.counters["unroutable"]:  # nothing tells when ZeroMQ has forgotten a peer
                assert not master.send(peer, ANSWER)
                await asyncio.sleep(0)


@on_uvloop
async def test_a_link_connects_again_to_a_restarted_master_and_says_so() -> None:
    async with serving() as master:
        address = master.addresses[0]
        link = Link(address)
        assert await link.ask(hello("n1")) == ANSWER
    await link.broken()
    assert not link.link.send(hello("n1"))
    async with serving(address) as master:
        await link.connected(times=2)
        assert master.heard == [], "nothing is sent before Hello on a new connection"
        assert await link.ask(hello("n1")) == ANSWER
    link.link.close(linger_s=0)


@on_uvloop
async def test_a_flood_leaves_turns_for_others() -> None:
    async with serving() as master, linked(master.addresses[0]) as link:
        await link.connected()
        largest, seen, turns = 0, 0, 0

        def turn() -> None:
            nonlocal largest, seen, turns
            turns += 1
            largest = max(largest, len(master.heard) - seen)
            seen = len(master.heard)
            if seen < 5000:
                asyncio.get_running_loop().call_soon(turn)

        for _ in range(5000):
            assert link.link.send(c.Bye(NodeId("n1"), "s", ""))
        turn()
        await master.events.until(lambda: len(master.heard) == 5000)
        assert largest <= 2 * 256, "at most the reader's own turn and the one it asked for"


@on_uvloop
async def test_an_error_in_what_a_message_led_to_does_not_stop_the_next() -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    heard: list[c.Message] = []
    waiter = Waiter()

    def fail_first(peer: Peer, message: c.Message) -> None:
        heard.append(message)
        waiter.notify()
        if len(heard) == 1:
            raise RuntimeError("a bug")

    master = MasterSocket((LOOPBACK,), fail_first, any_local_user=True)
    async with linked(master.addresses[0]) as link:
        await link.connected()
        for _ in range(3):
            link.link.send(c.Bye(NodeId("n1"), "s", ""))
        await waiter.until(lambda: len(heard) == 3)
    master.close()
    assert [str(error["exception"]) for error in errors] == ["a bug"]


@on_uvloop
async def test_a_link_and_a_socket_may_be_closed_by_what_they_receive() -> None:
    closed = asyncio.Event()

    def close_link(message: c.Message) -> None:
        link.close(linger_s=0)
        closed.set()

    def say_hello_thrice() -> None:
        for _ in range(3):
            link.send(hello("n"))

    async with serving() as master:
        link = NodeLink(master.addresses[0], close_link, on_connected=say_hello_thrice, any_local_user=True)
        await asyncio.wait_for(closed.wait(), 20)
