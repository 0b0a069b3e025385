from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest
import uvloop

from nimbusd import client as embedded
from nimbusd.client import (
    AsyncClient,
    Client,
    ClientClosed,
    ClientError,
    KeyRefused,
    MasterSilent,
    MasterUnreachable,
    RequestRefused,
    VersionMismatch,
)
from nimbusd.core.ids import NodeId
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import generate, write_pair
from tests.support.scripted_master import Answer, ScriptedMaster, polite, scripted

NOWHERE = "tcp://127.0.0.1:9"


@pytest.fixture
def master() -> Iterator[ScriptedMaster]:
    with ScriptedMaster(polite) as scripted:
        yield scripted


@pytest.fixture
def client(master: ScriptedMaster) -> Iterator[Client]:
    with Client.connect(master.address, timeout_s=20) as connected:
        yield connected


def python(code: str, *args: str) -> str:
    """Run code in a fresh interpreter; returns what it prints."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environ, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- embedding ---


def test_importing_the_client_loads_the_standard_library_pyzmq_and_msgpack_only() -> None:
    code = """
import json, sys
before = set(sys.modules)
import nimbusd.client
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
    loaded = set(json.loads(python(code)))
    # Both extensions bring modules of their Cython runtime along.
    foreign = {name for name in loaded - sys.stdlib_module_names if "cython" not in name.lower()}
    assert foreign == {"nimbusd", "zmq", "msgpack"}


def test_a_program_that_forgets_to_close_its_client_ends(master: ScriptedMaster) -> None:
    code = "import sys; from nimbusd.client import Client; print(len(Client.connect(sys.argv[1]).jobs()))"
    assert python(code, master.address) == "1\n"


def test_the_blocking_client_works_inside_a_running_loop(master: ScriptedMaster) -> None:
    async def main() -> None:
        with Client.connect(master.address) as client:
            assert [job.job for job in client.jobs()] == ["house"]
            ours = asyncio.all_tasks()
            assert len(ours) == 1  # nothing of the client's runs here

    asyncio.run(main())


def test_threads_share_one_client_and_each_gets_its_own_answers(client: Client, master: ScriptedMaster) -> None:
    def submit(number: int) -> str:
        return client.submit({"name": f"job_{number}"}).job

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(submit, range(200))) == [f"job_{number}" for number in range(200)]
    numbers = [request.request for request in master.seen if isinstance(request, control.Submit)]
    assert len(set(numbers)) == 200


def test_a_client_made_before_a_fork_says_so_in_the_child(client: Client) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            client.jobs()
        except ClientClosed as error:
            os._exit(0 if "before a fork" in str(error) else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(client.jobs()) == 1  # the parent's goes on


def test_the_asyncio_client_works_on_uvloop(master: ScriptedMaster) -> None:
    async def main() -> list[str]:
        async with await AsyncClient.connect(master.address) as client:
            jobs = await asyncio.gather(*(client.submit({"name": str(number)}) for number in range(50)))
        return [job.job for job in jobs]

    assert uvloop.run(main()) == [str(number) for number in range(50)]


# --- requests and their answers ---


def test_every_call_asks_what_it_says(client: Client, master: ScriptedMaster) -> None:
    client.submit({"name": "house"}, priority=3, user="eve", max_nodes=2, dynload=False)
    client.jobs(ended=False)
    assert client.job("house").reasons == {"unreachable": 1}
    assert client.cancel("house").count == 1
    client.retry("house")
    client.drain("node-a")
    client.drain("node-a", on=False)
    assert [node.node for node in client.nodes()] == ["node-a", "node-b"]
    assert client.counters() == {"dropped_malformed": 2}
    assert client.token(60.0).token == "nimbus1.secret"
    asked = [request for request in master.seen if not isinstance(request, control.Watch)]
    assert [type(request).__name__ for request in asked] == (
        ["Submit", "Jobs", "JobDetail", "Cancel", "Retry", "DrainNode", "DrainNode", "Nodes", "Nodes", "MakeToken"]
    )
    submit, jobs = asked[:2]
    assert isinstance(submit, control.Submit)
    assert isinstance(jobs, control.Jobs)
    assert (submit.priority, submit.user, submit.max_nodes, submit.dynload) == (3, "eve", 2, False)
    assert jobs.ended is False


def test_a_job_file_is_read_and_sent_as_its_description(client: Client, master: ScriptedMaster, tmp_path: Path) -> None:
    from tests.job.test_job_file import JOB

    (tmp_path / "meshes").mkdir()
    (tmp_path / "job.yaml").write_text(JOB)
    assert client.submit(tmp_path / "job.yaml").job == "toy"
    sent = master.seen[-1]
    assert isinstance(sent, control.Submit)
    assert sent.spec == embedded.spec_of(tmp_path / "job.yaml")
    assert sent.spec["scenes"][0][0] == "flat"


def test_a_refusal_has_the_masters_sentence_and_a_word_for_programs(client: Client) -> None:
    with pytest.raises(RequestRefused, match="there is no job 'hose'; there are: house") as caught:
        client.cancel("hose")
    assert caught.value.code == "unknown_job"


def test_a_job_without_a_name_is_refused_before_it_is_sent(client: Client, master: ScriptedMaster) -> None:
    with pytest.raises(RequestRefused, match="must have a name"):
        client.submit({"scenes": []})
    assert not any(isinstance(request, control.Submit) for request in master.seen)


def test_a_job_too_large_for_a_message_is_refused_here(client: Client) -> None:
    with pytest.raises(RequestRefused, match="Submit cannot be sent") as caught:
        client.submit({"name": "large", "scenes": ["x" * (17 << 20)]})
    assert caught.value.code == "too_large"


def test_failures_are_fetched_page_by_page() -> None:
    everything = [
        control.FailureReport("kitchen", index, 1, "failed", control.Failure("plan", "unreachable", ""), "n")
        for index in range(250)
    ]

    def script(request: control.Request) -> Answer:
        if isinstance(request, control.Failures):
            page = tuple(everything[request.offset : request.offset + min(request.limit, 70)])
            return control.FailureList(request.request, page, len(everything))
        return None

    with ScriptedMaster(scripted(script)) as master, Client.connect(master.address) as client:
        assert [failure.index for failure in client.failures("house")] == list(range(250))


def test_answers_that_are_unasked_doubled_or_garbage_are_dropped_and_harm_nothing() -> None:
    junk: Iterator[Answer] = itertools.cycle(
        [b"\xff\x00garbage", control.Done(9999), control.Hello(NodeId("n"), "s", "v", "e", {}, 1, ())]
    )

    def script(request: control.Request) -> Answer:
        return next(junk) if isinstance(request, control.Cancel) else None

    with ScriptedMaster(scripted(script)) as master, Client.connect(master.address, timeout_s=30) as client:
        client.timeout_s = 0.3
        for dropped in (1, 2, 3):
            with pytest.raises(MasterUnreachable, match=rf"did not answer Cancel.*\({dropped} frames"):
                client.cancel("house")
        client.timeout_s = 30
        assert len(client.jobs()) == 1


def test_an_answer_of_another_kind_is_an_error_that_names_both() -> None:
    def script(request: control.Request) -> Answer:
        return control.Done(request.request) if isinstance(request, control.Nodes) else None

    with (
        ScriptedMaster(scripted(script)) as master,
        Client.connect(master.address) as client,
        pytest.raises(ClientError, match="answered Nodes with Done, not NodeList"),
    ):
        client.nodes()


# --- what can go wrong with the connection ---


def test_a_port_on_which_nobody_listens_is_told_without_waiting() -> None:
    with pytest.raises(MasterUnreachable, match=f"no master listens at {NOWHERE}: the connection was refused"):
        Client.connect(NOWHERE, allow_any_local_user=True, timeout_s=600)


def test_a_socket_that_is_not_there_or_whose_master_is_gone_is_told_without_waiting(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    with pytest.raises(MasterUnreachable, match="there is no such socket"):
        Client.connect(address, timeout_s=600)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/s")
    with pytest.raises(MasterUnreachable, match="the process that made this socket is gone"):
        Client.connect(address, timeout_s=600)


def test_a_master_that_does_not_answer_is_told_apart_from_one_that_is_not_there() -> None:
    says = "accepted the connection but did not answer Watch"
    with ScriptedMaster(lambda request: None) as master, pytest.raises(MasterSilent, match=says):
        Client.connect(master.address, timeout_s=0.2)


def test_a_request_made_while_the_master_is_away_is_answered_when_it_is_back() -> None:
    with ScriptedMaster(polite) as first:
        client = Client.connect(first.address, timeout_s=30)
    with client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.jobs)
        with ScriptedMaster(polite, address=first.address):
            assert len(answer.result()) == 1


def test_a_request_whose_answer_a_dying_master_took_along_is_sent_again() -> None:
    asked = threading.Event()

    def mute(request: control.Request) -> Answer:
        if isinstance(request, control.Jobs):
            asked.set()
            return None
        return polite(request)

    with ThreadPoolExecutor() as pool:
        with ScriptedMaster(mute) as first:
            client = Client.connect(first.address, timeout_s=30)
            answer = pool.submit(client.jobs)
            assert asked.wait(30)
        with client, ScriptedMaster(polite, address=first.address) as second:
            assert len(answer.result()) == 1
        assert second.seen == [first.seen[-1]]  # with the same number, once


@pytest.mark.parametrize("whole_frame", [False, True])
def test_a_master_of_another_version_is_told_at_once(whole_frame: bool) -> None:
    """Either it refuses us in words, or we cannot read it."""

    def script(request: control.Request) -> Answer:
        if whole_frame:
            frame: bytes = msgpack.packb({"v": 99, "t": "Events", "b": {}})
            return frame
        return control.Refused(0, "bad_version", "the master speaks version 99, you speak version 1")

    with ScriptedMaster(script) as master, pytest.raises(VersionMismatch, match="99"):
        Client.connect(master.address, timeout_s=30)


def test_keys_that_do_not_fit_are_told_at_once_and_in_words(tmp_path: Path) -> None:
    keys = generate()
    (own, _), (_, public) = write_pair(generate(), tmp_path, "ada"), write_pair(keys, tmp_path, "master")
    with ScriptedMaster(polite, keys=keys) as master:
        with Client.connect(master.address, master_key=str(public), key=own) as client:
            assert len(client.jobs()) == 1
        with pytest.raises(KeyRefused, match="wants encryption"):
            Client.connect(master.address, allow_any_local_user=True, timeout_s=30)
        with pytest.raises(KeyRefused, match="does not have the master's key"):
            Client.connect(master.address, master_key=generate().public, key=own, timeout_s=30)
    plain_tcp = ScriptedMaster(polite, address="tcp://127.0.0.1:*")
    with plain_tcp as plain, pytest.raises(KeyRefused, match="does not have the master's key"):
        Client.connect(plain.address, master_key=keys.public, timeout_s=30)


def test_a_master_that_hangs_up_each_time_before_its_greeting_is_read_wants_encryption() -> None:
    """A master with keys may hang up so on a client without, where the machine is busy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # it is shut down
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            with pytest.raises(KeyRefused, match="wants encryption"):
                Client.connect(address, allow_any_local_user=True, timeout_s=60)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://10.1.2.3:7600", "used with keys only"),
        ("cluster", "not of the form"),
        ("http://127.0.0.1:7600", "not of the form"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_trying_it(address: str, says: str) -> None:
    with pytest.raises(ClientError, match=says):
        Client.connect(address)


def test_closing_fails_the_calls_that_are_under_way() -> None:
    asked = threading.Event()

    def script(request: control.Request) -> Answer:
        if isinstance(request, control.Jobs):
            asked.set()
            return None
        return polite(request)

    with ScriptedMaster(script) as master, ThreadPoolExecutor() as pool:
        client = Client.connect(master.address, timeout_s=60)
        under_way = pool.submit(client.jobs)
        assert asked.wait(30)
        client.close()
        client.close()
        with pytest.raises(ClientClosed):
            under_way.result()
        with pytest.raises(ClientClosed):
            client.jobs()


async def test_a_cancelled_call_is_forgotten(master: ScriptedMaster) -> None:
    async with await AsyncClient.connect(master.address) as client:
        call = asyncio.create_task(client.ask_events("1:0", "", 60.0))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(client._requests) == 0
