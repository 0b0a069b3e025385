"""Two users on one machine, for real: what one can do to the other's master, node, state and output."""

from __future__ import annotations

import functools
import grp
import json
import os
import shutil
import site
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nimbusd.chaos.processes import PATIENCE_S, Daemon
from nimbusd.client import Client
from tests.support.cluster import REPOSITORY, gate_of, toy_job

pytestmark = [pytest.mark.processes, pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")]

_FIRST = 200_000 + 10 * (os.getpid() % 10_000)  # runs side by side do not meet in /tmp
ADA, BOB, WORKER = _FIRST, _FIRST + 1, _FIRST + 2
GROUP = next(group for group in grp.getgrall() if group.gr_gid and not group.gr_mem)


@dataclass
class User:
    """A user without a name, who has a home and a session. groups: beside their own."""

    uid: int
    home: Path
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gid = self.gid or self.uid
        for folder in (self.home, self.runtime):
            folder.mkdir()
            os.chown(folder, self.uid, self.gid)
        self.runtime.chmod(0o700)

    @property
    def runtime(self) -> Path:
        return self.home / "run"

    @property
    def environ(self) -> dict[str, str]:
        paths = [*self.extra.get("PYTHONPATH", "").split(os.pathsep), str(REPOSITORY), *_site_packages()]
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONDONTWRITEBYTECODE": "1"}
        return {"PATH": os.environ["PATH"], **own, **self.extra, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def command(self, *args: str | Path) -> list[str]:
        """Python with these arguments, as this user."""
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        become = ["setpriv", "--reuid", str(self.uid), "--regid", str(self.gid), *groups]
        umask = ["sh", "-c", f'umask {self.umask:04o}; exec "$@"', "sh"]
        return [*become, *umask, _interpreter(), *map(str, args)]

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args), env=self.environ, cwd="/", capture_output=True, text=True, timeout=PATIENCE_S
        )

    def nimbusctl(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "nimbusd.cli", *args)


@functools.cache
def _interpreter() -> str:
    """One that other users may run, and that finds our packages."""
    for program in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        # By a shell: setpriv itself may still go where root may when it starts a program.
        become = ["setpriv", "--reuid", str(BOB), "--regid", str(BOB), "--clear-groups", "sh", "-c", 'exec "$@"', "sh"]
        command = [*become, program, "-c", "import nimbusd.client, numpy"]
        paths = os.pathsep.join([str(REPOSITORY), *_site_packages()])
        try:
            subprocess.run(command, env={"PYTHONPATH": paths}, cwd="/", check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        return program
    pytest.skip(f"no other user may run {sys.executable}, and there is none like it in /usr/bin")


def _site_packages() -> list[str]:
    return [
        path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")
    ] or site.getsitepackages()


@dataclass
class Grounds:
    """A folder that all users can enter, and what was started in it."""

    folder: Path
    daemons: list[Daemon] = field(default_factory=list)
    sockets: Path = Path(f"/tmp/nimbusd-{ADA}")
    """The folder of Ada's socket if not in her session."""

    def user(self, uid: int, name: str, **changes: object) -> User:
        return User(uid, self.folder / name, **changes)  # type: ignore[arg-type]

    def start(self, user: User, role: str, *options: str | Path) -> Daemon:
        command = user.command("-m", "nimbusd", role, *options)
        daemon = Daemon(
            ["env", "-i", *(f"{k}={v}" for k, v in user.environ.items()), *command], self.folder / f"{role}.log", {}
        )
        self.daemons.append(daemon)
        return daemon

    def shared(self, name: str, user: User, gid: int, mode: int) -> Path:
        """A folder for outputs."""
        folder = self.folder / name
        folder.mkdir()
        os.chown(folder, user.uid, gid)
        folder.chmod(mode)
        return folder


@pytest.fixture
def grounds() -> Iterator[Grounds]:
    """Not in tmp_path, which others may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-", dir="/tmp"))
    folder.chmod(0o755)
    grounds = Grounds(folder)
    try:
        yield grounds
    finally:
        for daemon in grounds.daemons:
            if daemon.alive:
                daemon.kill()
        shutil.rmtree(folder)
        left = [path for parent in ("/tmp", "/dev/shm") for path in Path(parent).glob("nimbusd-*")]
        for path in left:
            if path.lstat().st_uid in (ADA, BOB, WORKER):  # killed nodes leave them to the next of the same user
                shutil.rmtree(path)


def address_of(master: Daemon) -> str:
    return master.wait_for("listening on").partition("listening on ")[2].partition(";")[0]


def test_a_user_can_do_nothing_to_another_ones_daemons_but_read_their_output(grounds: Grounds) -> None:
    ada, bob = grounds.user(ADA, "ada"), grounds.user(BOB, "bob")
    shared = grounds.shared("shared", ada, ada.gid, 0o755)
    master = grounds.start(ada, "master")
    address = address_of(master)
    assert address == f"ipc://{ada.runtime}/nimbusd/socket"
    node = grounds.start(ada, "worker", "--workers", "1", "--name", "w1")
    master.wait_for("node w1 joined")
    job = toy_job(shared)
    gate_of(shared, job.name).touch()
    with Client.connect(address, timeout_s=PATIENCE_S) as client:  # as root, who may
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"

    sockets = [
        str(path)
        for path in (Path("/tmp"), Path("/dev/shm"))
        for path in path.glob("nimbusd-node-*")
        if path.stat().st_uid == ADA
    ]
    assert sockets
    victim = {
        "uid": ADA,
        "pids": {"master": master.pid, "node": node.pid, "worker": node.compute_workers()[0].pid},
        "state": str(ada.home / ".local/state/nimbusd/master"),
        "socket": address.removeprefix("ipc://"),
        "folders": [str(ada.runtime / "nimbusd"), *sockets],
        "output": str(job.output),
        "roots": [str(ada.home), "/dev/shm", *sockets],
    }
    tried = bob.run("-m", "tests.support.other_user", json.dumps(victim))
    assert tried.returncode == 0, tried.stderr
    outcomes = json.loads(tried.stdout)
    assert outcomes.pop("open") == []
    done = {name for name, outcome in outcomes.items() if outcome == "done"}
    assert done == {"command line of master", "command line of node", "command line of worker", "read the output"}
    assert {outcomes[name] for name in outcomes.keys() - done} == {"EACCES", "EPERM"}
    assert master.alive
    assert node.alive

    told = bob.nimbusctl("status", "--master", address)
    assert told.returncode == 3
    assert "may not use this socket" in told.stderr
    assert "--group" in told.stderr
    looked = bob.nimbusctl("status")
    assert looked.returncode == 3
    assert f"no master listens at ipc://{bob.runtime}/nimbusd/socket: there is no such socket" in looked.stderr


def test_on_loopback_tcp_a_user_without_a_key_of_the_masters_gets_nothing(grounds: Grounds) -> None:
    ada, bob = grounds.user(ADA, "ada"), grounds.user(BOB, "bob")
    address = address_of(grounds.start(ada, "master", "--bind", "tcp://127.0.0.1:*"))
    for options, status, says in (
        ((), 2, "keys only"),
        (("--allow-any-local-user",), 4, "wants encryption"),
        (("--master-key", (ada.home / ".local/state/nimbusd/master/master.pub")), 2, "Permission denied"),
    ):
        told = bob.nimbusctl("status", "--master", address, *options)
        assert (told.returncode, told.stdout) == (status, ""), told.stderr
        assert says in told.stderr


def test_a_user_who_makes_the_folder_of_anothers_socket_first_is_not_taken_for_their_master(grounds: Grounds) -> None:
    ada, bob = grounds.user(ADA, "ada", extra={"XDG_RUNTIME_DIR": ""}), grounds.user(BOB, "bob")
    trap = grounds.sockets
    made = bob.run("-c", f"import os; os.mkdir({str(trap)!r}); os.chmod({str(trap)!r}, 0o755)")
    assert made.returncode == 0, made.stderr
    listening = grounds.start(bob, "master", "--bind", f"ipc://{trap}/socket")
    address_of(listening)
    (trap / "socket").chmod(0o777)
    master = grounds.start(ada, "master")
    assert master.wait() == 2
    assert master.said(f"belongs to user {BOB}")
    looked = ada.nimbusctl("status")
    assert looked.returncode == 3, looked
    assert str(trap) not in looked.stderr


def test_the_members_of_a_group_may_use_a_master_that_was_started_for_it(grounds: Grounds) -> None:
    ada = grounds.user(ADA, "ada", groups=(GROUP.gr_gid,))
    member, bob = grounds.user(WORKER, "member", gid=GROUP.gr_gid), grounds.user(BOB, "bob")
    address = address_of(grounds.start(ada, "master", "--group", GROUP.gr_name))
    place = grounds.sockets  # the session's folder is for its user alone
    assert address == f"ipc://{place}/socket"
    assert stat.S_IMODE(place.stat().st_mode) == 0o710
    assert member.nimbusctl("status", "--master", address).stdout.startswith("There are no jobs")
    assert bob.nimbusctl("status", "--master", address).returncode == 3
    # Even where the files would let them in, the kernel says who they are.
    place.chmod(0o711)
    (place / "socket").chmod(0o666)
    turned_away = bob.nimbusctl("status", "--master", address)
    assert turned_away.returncode == 4
    assert "hung up: it takes its own user, root, and the members of the group" in turned_away.stderr
    assert member.nimbusctl("status", "--master", address).returncode == 0


def test_a_master_and_a_node_of_different_users_finish_a_job_and_the_node_sees_nothing_of_the_masters_state(
    grounds: Grounds,
) -> None:
    """Like the units: outputs belong to a group that both are in, keys let the node be a node and nothing more."""
    master_user = grounds.user(ADA, "master", gid=GROUP.gr_gid, umask=0o002)
    worker_user = grounds.user(WORKER, "worker", gid=GROUP.gr_gid, umask=0o002)
    shared = grounds.shared("outputs", master_user, GROUP.gr_gid, 0o2775)
    address = f"ipc://{master_user.runtime}/socket"
    options = ("--bind", "tcp://127.0.0.1:*", "--bind", address)
    master = grounds.start(master_user, "master", *options)
    address_of(master)
    with Client.connect(address, timeout_s=PATIENCE_S) as client:
        token = client.token().token
        node = grounds.start(worker_user, "worker", "--workers", "1", "--name", "w1", "--join", token)
        master.wait_for("node w1 joined")
        job = toy_job(shared)
        gate_of(shared, job.name).touch()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete", node.tail()
        again = toy_job(shared, "again")
        gate_of(shared, again.name).touch()
        client.submit(again)
        assert client.wait(again.name, PATIENCE_S).state == "complete"
    state = master_user.home / ".local/state/nimbusd/master"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    looked = worker_user.run("-c", f"import os; os.listdir({str(state)!r})")
    assert "PermissionError" in looked.stderr
    told = worker_user.nimbusctl("status", "--master", address)
    assert told.returncode == 3
    assert "may not use this socket" in told.stderr
    pieces = [path for path in job.output.rglob("*") if path.stat().st_uid == WORKER]
    assert pieces, "the node has made none"
    assert all(path.stat().st_gid == GROUP.gr_gid for path in pieces)
