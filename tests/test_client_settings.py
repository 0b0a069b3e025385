"""Where a client finds its master and its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbusd.client import (
    ClientError,
)
from nimbusd.transport.client_settings import find_settings, settings_file
from nimbusd.transport.keys import generate


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


def test_the_files_keys_are_not_used_for_a_loopback_address_from_elsewhere(tmp_path: Path) -> None:
    environ = write_settings(tmp_path, f'master = "tcp://10.0.0.5:7600"\nmaster_key = "{generate().public}"\n')
    assert find_settings("127.0.0.1:7600", environ=environ).master_key == ""


def test_without_any_settings_the_master_is_on_this_machine(tmp_path: Path) -> None:
    found = find_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (found.address, found.master_key, found.key) == ("tcp://127.0.0.1:7600", "", None)


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
