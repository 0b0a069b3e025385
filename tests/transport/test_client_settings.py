"""The places in which a client finds its master and its key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nimbusd.client import (
    ClientError,
)
from nimbusd.transport.client.settings import find_settings, settings_file
from nimbusd.transport.security.keys import generate, is_key, write_pair
from nimbusd.transport.sockets.places import find_socket


def write_settings(folder: Path, text: str) -> dict[str, str]:
    """The environment in which `text` is the settings file."""
    environ = {"XDG_CONFIG_HOME": str(folder)}
    path = settings_file(environ)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return environ


def test_settings_come_from_arguments_then_the_environment_then_the_file(tmp_path: Path) -> None:
    master, other = generate().public, generate().public
    environ = write_settings(tmp_path, f'master = "tcp://10.0.0.5:7600"\nmaster_key = "{master}"\nkey = "/k/ada.key"\n')
    found = find_settings(environ=environ)
    assert (found.address, found.master_key, found.key) == ("tcp://10.0.0.5:7600", master, Path("/k/ada.key"))
    environ["NIMBUS_MASTER_KEY"] = other
    assert find_settings(environ=environ).master_key == other
    assert find_settings("10.0.0.6:1", master, environ=environ).master_key == master
    assert find_settings("10.0.0.6:1", environ=environ).address == "tcp://10.0.0.6:1"


def test_keys_are_used_for_tcp_and_for_nothing_that_needs_none(tmp_path: Path) -> None:
    master = generate().public
    environ = write_settings(tmp_path, f'master = "tcp://10.0.0.5:7600"\nmaster_key = "{master}"\n')
    assert find_settings("127.0.0.1:7600", environ=environ).master_key == master
    assert find_settings("127.0.0.1:7600", any_local_user=True, environ=environ).master_key == ""
    assert find_settings("ipc:///run/socket", environ=environ).master_key == ""


@pytest.mark.parametrize(
    ("text", "variable", "allowed"),
    [("", "1", True), ("allow_any_local_user = true\n", "", True), ("allow_any_local_user = false\n", "0", False)],
)
def test_the_file_or_the_environment_may_say_that_loopback_needs_no_keys(
    tmp_path: Path, text: str, variable: str, allowed: bool
) -> None:
    environ = {**write_settings(tmp_path, text), "NIMBUS_ALLOW_ANY_LOCAL_USER": variable}
    assert find_settings("127.0.0.1:7600", environ=environ).any_local_user == allowed


def test_an_allowance_that_is_neither_yes_nor_no_is_named(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "NIMBUS_ALLOW_ANY_LOCAL_USER": "perhaps"}
    with pytest.raises(ClientError, match="NIMBUS_ALLOW_ANY_LOCAL_USER is 'perhaps'"):
        find_settings(environ=environ)
    with pytest.raises(ClientError, match="'allow_any_local_user' must be true or false, but it is 1"):
        find_settings(environ=write_settings(tmp_path / "other", "allow_any_local_user = 1\n"))


def test_without_any_settings_the_master_is_on_this_machine(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    found = find_settings(environ=environ)
    assert (found.address, found.master_key, found.key) == (find_socket(environ, os.geteuid()), "", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mastr = 'x'", "unknown key 'mastr'; did you mean 'master'?"),
        ("master = 7600", "'master' must be text in quotes, but it is 7600"),
        ("master = ", "cannot be read"),
        ("master = '10.0.0.5:7600'\nmaster_key = '/no/such.pub'", "master's key: .*/no/such.pub"),
    ],
)
def test_a_mistake_in_the_settings_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ClientError, match=says):
        find_settings(environ=write_settings(tmp_path, text))


def test_a_file_whose_path_looks_like_a_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = generate()
    write_pair(pair, tmp_path, "a" * 36)
    monkeypatch.chdir(tmp_path)
    path = "a" * 36 + ".pub"
    assert is_key(path)
    assert find_settings("tcp://10.0.0.5:7600", path, environ={}).master_key == pair.public


def test_a_bad_address_is_named_with_where_it_stands(tmp_path: Path) -> None:
    environ = write_settings(tmp_path, 'master = "10.0.0.5"\n')
    with pytest.raises(ClientError, match=r"settings file .*client\.toml: 'master': address 'tcp://10.0.0.5' is"):
        find_settings(environ=environ)
    with pytest.raises(ClientError, match=r"^NIMBUS_MASTER: address 'tcp://host:99999': ports go up"):
        find_settings(environ=environ | {"NIMBUS_MASTER": "host:99999"})
    with pytest.raises(ClientError, match=r"^address 'udp://host:1' is not of the form"):
        find_settings("udp://host:1", environ=environ)
