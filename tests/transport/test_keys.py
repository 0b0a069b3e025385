"""Keys and their files, and `nimbusctl keygen`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from nimbusd.cli.keys import keygen
from nimbusd.transport.security.keys import KeyFileError, generate, is_key, is_name, read_pair, read_public, write_pair


def test_a_pair_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for number in range(50):  # some secrets begin with #, as comments do
        pair = generate()
        secret, public = write_pair(pair, tmp_path, f"gpu-{number}")
        assert read_pair(secret) == pair
        assert read_public(public) == (f"gpu-{number}", pair.public)


def test_nobody_but_the_owner_can_read_a_secret(tmp_path: Path) -> None:
    secret, public = write_pair(generate(), tmp_path, "gpu")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().strip() not in public.read_text()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o620])
def test_a_secret_that_others_can_use_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    secret, _ = write_pair(generate(), tmp_path, "gpu")
    secret.chmod(mode)
    with pytest.raises(KeyFileError, match=rf"has mode 0{mode:o}.*chmod 600 {secret}"):
        read_pair(secret)


def test_existing_keys_are_not_lost(tmp_path: Path) -> None:
    pair = generate()
    secret, public = write_pair(pair, tmp_path, "gpu")
    with pytest.raises(KeyFileError, match=r"gpu\.key and .*gpu\.pub exist and would be lost.*--force"):
        write_pair(generate(), tmp_path, "gpu")
    public.unlink()
    with pytest.raises(KeyFileError, match=r"gpu\.key exists"):
        write_pair(generate(), tmp_path, "gpu")
    assert read_pair(secret) == pair
    other = generate()
    write_pair(other, tmp_path, "gpu", force=True)
    assert read_pair(secret) == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.key", "gpu.pub"]


@pytest.mark.parametrize("name", ["", "../gpu", "a b", "-x", ".hidden", "x" * 64, "ä", "a\n"])
def test_names_that_could_be_paths_or_lines_are_refused(tmp_path: Path, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(KeyFileError, match="letters, digits"):
        write_pair(generate(), tmp_path, name)


@pytest.mark.parametrize(
    "text", ["", "no key\n", "x" * 39 + "\n", "~" * 40, "%%%%%" * 8, "#\n" + "0.0-0" * 8 + "\n" + "0:0+0" * 8]
)
def test_files_without_one_key_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gpu.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"holds \d keys instead of one"):
        read_pair(path)
    with pytest.raises(KeyFileError, match="not one line"):
        read_public(path)


def test_files_that_cannot_be_read_are_told_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"none\.key: No such file.*keygen"):
        read_pair(tmp_path / "none.key")
    with pytest.raises(KeyFileError, match=r"none\.pub"):
        read_public(tmp_path / "none.pub")
    (tmp_path / "b.key").write_bytes(os.urandom(200) + b"\xff")
    with pytest.raises(KeyFileError, match="is not text"):
        read_pair(tmp_path / "b.key")
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot write keys"):
        write_pair(generate(), tmp_path / "file", "gpu")


def test_of_a_pair_the_file_that_is_needed_is_named_when_the_other_one_is_given(tmp_path: Path) -> None:
    secret, public = write_pair(generate(), tmp_path, "admin")
    with pytest.raises(KeyFileError, match=rf"public key, and a secret one is needed: name {secret}"):
        read_pair(public)
    with pytest.raises(KeyFileError, match=rf"secret key, and a public one is needed: name {public}"):
        read_public(secret)
    renamed = public.rename(tmp_path / "admin")
    with pytest.raises(KeyFileError, match=r"admin holds a public key.*admin\.key"):
        read_pair(renamed)


def test_a_key_shows_no_secret_when_printed() -> None:
    pair = generate()
    assert pair.secret not in repr(pair)
    assert is_key(pair.public)
    assert not is_key(pair.public[:-1] + "~")
    assert not is_key("é" * 40)


def test_keygen_writes_a_pair_and_says_how_to_let_it_in(tmp_path: Path) -> None:
    told = CliRunner().invoke(keygen, ["--output", str(tmp_path / "new"), "--name", "alice"])
    assert told.exit_code == 0, told.output
    pair = read_pair(tmp_path / "new" / "alice.key")
    assert f"admin alice {pair.public}" in told.output
    assert pair.secret not in told.output

    again = CliRunner().invoke(keygen, ["--output", str(tmp_path / "new"), "--name", "alice"])
    assert again.exit_code == 1
    assert "--force" in again.output

    forced = CliRunner().invoke(keygen, ["--output", str(tmp_path / "new"), "--name", "alice", "--force", "--json"])
    row = json.loads(forced.output)
    assert row["public_key"] == read_pair(Path(row["secret_file"])).public != pair.public
