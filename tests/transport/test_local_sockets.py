"""The Unix socket of a master: where it lies, who may use it, and whose it is when there are two."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nimbusd.transport.errors import TransportError
from nimbusd.transport.security.ownership import open_to_others
from nimbusd.transport.sockets.addresses import AddressError
from nimbusd.transport.sockets.local_listener import LocalListener, group_id, make_folder
from nimbusd.transport.sockets.places import SocketPlace, find_socket, knock, place_to_listen, why_unreachable
from tests.support.linked_peers import hello, linked, on_uvloop, serving

ME = os.geteuid()
as_root = pytest.mark.skipif(ME != 0, reason="gives files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def session(folder: Path, uid: int = 1234) -> dict[str, str]:
    """The environment of a user with a session folder. Only root can make one for another user."""
    folder.mkdir()
    if uid != ME:
        os.chown(folder, uid, uid)
    return {"XDG_RUNTIME_DIR": str(folder)}


# --- where ---


def test_a_service_listens_in_its_runtime_folder_and_root_in_the_systems() -> None:
    service = place_to_listen({"RUNTIME_DIRECTORY": "/run/nimbusd/master:/run/other"}, 991)
    assert service == SocketPlace(Path("/run/nimbusd/master"), ours=False)
    assert place_to_listen({"XDG_RUNTIME_DIR": "/run/user/0"}, 0) == SocketPlace(Path("/run/nimbusd/master"))


@as_root
def test_a_user_listens_in_the_session_and_elsewhere_for_a_group_or_when_the_session_is_anothers(
    tmp_path: Path,
) -> None:
    mine = session(tmp_path / "session")
    assert place_to_listen(mine, 1234).folder == tmp_path / "session" / "nimbusd"
    for environ, uid, for_group in ((mine, 1234, True), (mine, 1235, False), ({}, 1234, False)):
        assert place_to_listen(environ, uid, for_group=for_group).folder == Path(f"/tmp/nimbusd-{uid}")


@as_root
def test_a_client_looks_in_its_own_folders_first_and_not_where_another_user_could_have_put_a_socket(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    environ = session(tmp_path / "session")
    assert find_socket(environ, 1234) == f"ipc://{tmp_path}/session/nimbusd/socket"
    planted = tmp_path / "session" / "nimbusd"
    planted.mkdir()
    os.chown(planted, 4321, 4321)
    assert find_socket(environ, 1234) == "ipc:///tmp/nimbusd-1234/socket"


# --- the folder ---


def test_the_folder_is_closed_to_others_whatever_the_umask_and_whatever_it_was(tmp_path: Path) -> None:
    place = SocketPlace(tmp_path / "run" / "master")
    make_folder(place)
    assert (mode(place.folder), mode(place.folder.parent)) == (0o700, 0o755)
    place.folder.chmod(0o755)
    make_folder(place)
    assert mode(place.folder) == 0o700
    make_folder(place, os.getegid())
    assert mode(place.folder) == 0o710


def test_a_folder_in_which_others_could_put_a_socket_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "master"
    folder.symlink_to(tmp_path)
    with pytest.raises(AddressError, match="must be a folder, and is a link"):
        make_folder(SocketPlace(folder))
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(AddressError, match=r"others could replace the socket.*mode 0777"):
        make_folder(SocketPlace(folder))


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "master"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    with pytest.raises(AddressError, match="belongs to user 1234: is it a service's"):
        make_folder(SocketPlace(folder))


def test_a_folder_of_a_service_stays_as_the_service_has_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    make_folder(SocketPlace(tmp_path, ours=False))
    assert mode(tmp_path) == 0o711


# --- the socket ---


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize(("gid", "wanted"), [(None, 0o600), (os.getegid(), 0o660)])
def test_the_socket_is_for_its_user_and_perhaps_a_group_whatever_the_umask(
    tmp_path: Path, umask: int, gid: int | None, wanted: int
) -> None:
    before = os.umask(umask)
    try:
        listener = LocalListener(tmp_path / "s", gid)
    finally:
        os.umask(before)
    assert mode(tmp_path / "s") == wanted
    listener.close()
    assert not (tmp_path / "s").exists()


def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    code = (
        "import sys, os; from nimbusd.transport.sockets.local_listener import *; "
        "LocalListener(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], check=False, timeout=60)
    assert why_unreachable(tmp_path / "s") == "the process that made this socket is gone"
    listener = LocalListener(tmp_path / "s")
    assert knock(tmp_path / "s") is None
    listener.close()


def test_a_path_on_which_somebody_listens_is_not_taken_from_them(tmp_path: Path) -> None:
    listener = LocalListener(tmp_path / "s")
    with pytest.raises(TransportError, match=f"another master listens on ipc://{tmp_path}/s"):
        LocalListener(tmp_path / "s")
    listener.close()
    with socket.socket(socket.AF_UNIX) as other:  # one that knows nothing of our lock
        other.bind(f"{tmp_path}/s")
        other.listen()
        with pytest.raises(TransportError, match="another master listens"):
            LocalListener(tmp_path / "s")
        assert knock(tmp_path / "s") is None


def test_a_place_where_others_could_put_a_socket_of_theirs_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(AddressError, match=r"others could put a socket of theirs in the place of .*has mode 1777"):
        LocalListener(tmp_path / "s")


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AddressError, match="a file that is no socket"):
        LocalListener(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"
    with pytest.raises(TransportError, match="No such file or directory"):
        LocalListener(tmp_path / "no" / "s")


def test_a_group_that_is_not_there_is_named() -> None:
    with pytest.raises(AddressError, match="no group 'nobody-knows'"):
        group_id("nobody-knows")


@on_uvloop
async def test_a_master_listens_on_a_socket_and_a_port_at_once_and_is_found_again_after_a_restart(
    tmp_path: Path,
) -> None:
    local = f"ipc://{tmp_path}/s"
    async with (
        serving((local, "tcp://127.0.0.1:*")) as master,
        linked(local) as link,
        linked(master.addresses[1]) as far,
    ):
        assert await link.ask(hello("n1")) == await far.ask(hello("n2"))
        with pytest.raises(TransportError, match="another master listens"):
            async with serving(local):
                pass
    async with serving(local), linked(local) as link:
        await link.ask(hello("n1"))


# --- who may write where ---


def test_what_only_we_may_change_is_closed_to_others(tmp_path: Path) -> None:
    assert open_to_others(tmp_path, ME) is None
    assert open_to_others(tmp_path / "not" / "there", ME) is None


def test_a_folder_or_one_above_it_that_all_may_change_is_open_to_others(tmp_path: Path) -> None:
    above = tmp_path / "above"
    folder = above / "folder"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert open_to_others(folder, ME) == f"{folder} belongs to {_own_name()} and has mode 0777"
    folder.chmod(0o755)
    above.chmod(0o777)
    assert f"{above} belongs to" in str(open_to_others(folder, ME))
    above.chmod(0o1777)  # like /tmp: what is in there can be replaced by its owner alone
    assert open_to_others(folder, ME) is None
    assert open_to_others(above, ME) is not None  # but anybody may add to it


def test_the_folder_that_a_link_leads_to_counts(tmp_path: Path) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.mkdir()
    link.symlink_to(there)
    assert open_to_others(link, ME) is None
    there.chmod(0o777)
    assert f"{there} belongs to" in str(open_to_others(link, ME))


@as_root
def test_a_folder_of_another_user_or_a_group_with_others_in_it_is_open_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    assert open_to_others(tmp_path, ME) is None  # root's own group
    os.chown(tmp_path, 0, 54321)
    assert "its group has other members (unknown ones)" in str(open_to_others(tmp_path, ME))
    os.chown(tmp_path, 1234, 0)
    assert "belongs to user 1234" in str(open_to_others(tmp_path, ME))
    assert open_to_others(tmp_path, 1234) is None


def _own_name() -> str:
    import pwd

    return pwd.getpwuid(ME).pw_name
