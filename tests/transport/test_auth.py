"""Admission, and what each may say: tokens, the allow-list and the gate."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import NodeId
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.auth import AllowList, AllowListError, Entry, Peer, PeerRole, objection
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import generate
from nimbusd.transport.security.tokens import MAX_OPEN_TOKENS, JoinToken, Redeemed, TokenError, TokenStore, new_secret
from nimbusd.transport.sockets.addresses import AddressError, check_address

KEY, OTHER_KEY, THIRD_KEY = (generate().public for _ in range(3))
TOKEN = JoinToken("tcp://10.0.0.1:7600", KEY, "s3cret-s3cret", 1000.0)


# --- tokens ---


@given(st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_a_token_is_one_line_that_says_all(address: str, secret: str, expires: float) -> None:
    token = JoinToken(address, KEY, secret, expires)
    text = token.text()
    assert len(text.split()) == 1
    assert text.startswith("nimbus1.")
    assert JoinToken.parse(f"  {text}\n") == token


@given(st.integers(0, 500), st.characters(codec="ascii"))
def test_a_damaged_token_is_told_from_a_good_one_and_not_quoted(at: int, char: str) -> None:
    text = TOKEN.text()
    at %= len(text) - 1  # of the last character, some bits may mean nothing
    damaged = text[:at] + char + text[at + 1 :]
    if damaged.strip() == text:
        return
    with pytest.raises(TokenError) as caught:
        JoinToken.parse(damaged)
    assert TOKEN.secret not in str(caught.value)
    assert text[20:40] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no join token"),
        ("K10abc::server:xyz", "no join token"),
        (TOKEN.text()[:-9], "damaged"),
        (TOKEN.text()[:30] + " " + TOKEN.text()[30:], "damaged"),
        (TOKEN.text()[:30] + "é" + TOKEN.text()[30:], "damaged"),
        ("nimbus1.", "damaged"),
        ("nimbus1." + base64.urlsafe_b64encode(os.urandom(90)).decode(), "damaged"),
        (JoinToken("tcp://h:1", "x", "s", 1.0).text(), "no valid key"),
    ],
)
def test_what_is_no_token_is_told_with_the_way_out(text: str, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        JoinToken.parse(text)


def test_a_token_shows_no_secret_when_printed() -> None:
    assert TOKEN.secret not in repr(TOKEN)


def test_a_secret_is_good_once_and_until_it_expires() -> None:
    store = TokenStore()
    store.issue("a", now_unix_s=100.0, ttl_s=60.0)
    store.issue("b", now_unix_s=100.0, ttl_s=60.0)
    assert store.redeem("c", 110.0) is Redeemed.UNKNOWN
    assert store.redeem("a", 110.0) is Redeemed.YES
    assert store.redeem("a", 110.0) is Redeemed.USED
    assert store.is_open(110.0)
    assert not store.is_open(160.0)
    assert store.redeem("b", 160.0) is Redeemed.EXPIRED
    store.forget_expired(160.0)
    assert store.redeem("b", 160.0) is Redeemed.UNKNOWN
    assert store.issued() == ()


def test_used_secrets_open_nothing_and_survive_a_restart() -> None:
    store = TokenStore()
    store.issue("a", 0.0, 60.0)
    assert store.redeem("a", 1.0) is Redeemed.YES
    assert not store.is_open(1.0)
    assert TokenStore(store.issued()).redeem("a", 1.0) is Redeemed.USED


def test_secrets_are_not_kept_in_clear() -> None:
    store, secret = TokenStore(), new_secret()
    store.issue(secret, 0.0, 60.0)
    assert secret not in repr(store.issued())
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("inf"), float("nan")])
def test_tokens_that_never_or_always_work_are_not_issued(ttl_s: float) -> None:
    with pytest.raises(TokenError, match="cannot be good for"):
        TokenStore().issue("a", 0.0, ttl_s)


def test_open_tokens_have_a_limit() -> None:
    store = TokenStore()
    for number in range(MAX_OPEN_TOKENS):
        store.issue(str(number), 0.0, 60.0)
    with pytest.raises(TokenError, match="tokens are open"):
        store.issue("more", 1.0, 60.0)
    store.issue("more", 61.0, 60.0)


# --- the allow-list ---


def test_an_allow_list_is_read_with_its_comments() -> None:
    text = f"# our machines\n\nnode gpu-1 {KEY}\n  admin ann   {OTHER_KEY}  \n#node old {THIRD_KEY}\n"
    listed = AllowList.parse(text, "authorized")
    assert listed.entries() == (Entry(PeerRole.NODE, "gpu-1", KEY), Entry(PeerRole.ADMIN, "ann", OTHER_KEY))
    assert listed.get(KEY) == Entry(PeerRole.NODE, "gpu-1", KEY)
    assert listed.get(THIRD_KEY) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"gpu-1 {KEY}", "expected `node NAME KEY`"),
        (f"local gpu-1 {KEY}", "expected `node NAME KEY`"),
        (f"guest gpu-1 {KEY}", "expected `node NAME KEY`"),
        (f"node gpu/1 {KEY}", "is not 1 to 63 letters"),
        (f"node gpu-1 {KEY[:-1]}", "is not 40 characters"),
        (f"node gpu-2 {THIRD_KEY}", "is that of node known already"),
        (f"admin gpu-2 {THIRD_KEY}", "is that of node known already"),
        (f"node known {KEY}", "has another key already"),
    ],
    ids=str.split("no-kind local guest slash short-key node-twice admin-twice other-key"),
)
def test_a_bad_line_is_named(line: str, said: str) -> None:
    with pytest.raises(AllowListError, match=f"authorized:2: .*{said}"):
        AllowList.parse(f"node known {THIRD_KEY}\n{line}\n", "authorized")


def test_a_person_and_a_node_may_have_the_same_name() -> None:
    assert len(AllowList.parse(f"node ann {KEY}\nadmin ann {OTHER_KEY}", "x").entries()) == 2


# --- what peers may say ---

NODE = Peer(0, b"r", PeerRole.NODE, "gpu-1", KEY)
ADMIN = Peer(0, b"r", PeerRole.ADMIN, "ann", KEY)
GUEST = Peer(0, b"r", PeerRole.GUEST, "", KEY)
LOCAL = Peer(0, b"r", PeerRole.LOCAL)


def test_a_node_speaks_for_itself_alone() -> None:
    assert objection(NODE, c.Bye(NodeId("gpu-1"), "s", "")) is None
    assert objection(NODE, c.Bye(NodeId("gpu-2"), "s", "")) == "the key of node gpu-1 may not speak for node 'gpu-2'"
    assert objection(LOCAL, c.Bye(NodeId("gpu-2"), "s", "")) is None


def test_requests_are_for_admins() -> None:
    request = c.DrainNode(1, "gpu-1")
    assert objection(ADMIN, request) is None
    assert objection(LOCAL, request) is None
    assert objection(NODE, request) == "a key of role node may not send DrainNode"
    assert objection(ADMIN, c.Bye(NodeId("ann"), "s", "")) == "a key of role admin may not send Bye"


@pytest.mark.parametrize("cls", c.MESSAGES, ids=lambda cls: cls.__name__)
def test_guests_may_say_nothing_and_nobody_speaks_for_the_master(cls: type) -> None:
    message: c.Message = object.__new__(cls)
    assert "does not know the key" in str(objection(GUEST, message))
    if cls not in (*c.FROM_NODE, *c.REQUESTS):
        assert all(objection(peer, message) is not None for peer in (LOCAL, ADMIN, NODE))


# --- the gate ---


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_node_enrols_by_a_token_and_the_master_remembers_it(tmp_path: Path) -> None:
    clock = Clock()
    gate = Gate(tmp_path, clock=clock)
    assert not gate.admits(OTHER_KEY)
    token = gate.make_token("tcp://10.0.0.1:7600", KEY, 60.0)
    assert token == JoinToken("tcp://10.0.0.1:7600", KEY, token.secret, 1060.0)
    assert gate.admits(OTHER_KEY)
    gate = Gate(tmp_path, clock=clock)  # the master was restarted
    assert gate.enrol(OTHER_KEY, "gpu-1", token.secret) is None
    assert gate.enrol(OTHER_KEY, "gpu-1", token.secret) is None, "the answer may have been lost"
    assert not gate.admits(THIRD_KEY)
    gate = Gate(tmp_path, clock=clock)
    assert gate.entry(OTHER_KEY) == Entry(PeerRole.NODE, "gpu-1", OTHER_KEY)
    assert "was used by another node" in str(gate.enrol(THIRD_KEY, "gpu-2", token.secret))


def test_enrolment_that_fails_says_why(tmp_path: Path) -> None:
    clock = Clock()
    gate = Gate(tmp_path, clock=clock)
    gate.add(Entry(PeerRole.NODE, "gpu-1", KEY))
    first, second = (gate.make_token("tcp://h:1", KEY, ttl_s).secret for ttl_s in (60.0, 600.0))
    assert "did not issue" in str(gate.enrol(OTHER_KEY, "gpu-2", "guess"))
    assert "over an encrypted connection only" in str(gate.enrol("", "gpu-2", first))
    assert "node gpu-1 has another key already; join under another name" in str(gate.enrol(OTHER_KEY, "gpu-1", first))
    assert "letters, digits" in str(gate.enrol(OTHER_KEY, "gpu\n2", first))
    assert "is that of node gpu-1 already" in str(gate.enrol(KEY, "gpu-2", first))
    clock.now += 61.0
    assert "has expired" in str(gate.enrol(OTHER_KEY, "gpu-2", first))
    assert gate.enrol(OTHER_KEY, "gpu-2", second) is None


def test_a_node_that_was_taken_off_the_list_cannot_come_back_by_its_old_token(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    secret = gate.make_token("tcp://h:1", KEY, 60.0).secret
    assert gate.enrol(OTHER_KEY, "gpu-1", secret) is None
    (tmp_path / "authorized").write_text("# nobody\n")
    assert "was used" in str(gate.enrol(OTHER_KEY, "gpu-1", secret))
    assert gate.entry(OTHER_KEY) is None


def test_the_operators_edits_count_at_once_and_are_kept(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    path = tmp_path / "authorized"
    path.write_text(f"# ours\nadmin ann {KEY}")
    assert gate.admits(KEY)
    gate.add(Entry(PeerRole.NODE, "gpu-1", OTHER_KEY))
    gate.add(Entry(PeerRole.NODE, "gpu-1", OTHER_KEY))
    assert path.read_text() == f"# ours\nadmin ann {KEY}\nnode gpu-1 {OTHER_KEY}\n"
    path.write_text(f"node gpu-1 {OTHER_KEY}\n")
    gate.refresh()
    assert gate.entry(KEY) is None


def test_a_damaged_edit_leaves_the_last_good_list_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(tmp_path)
    gate.add(Entry(PeerRole.ADMIN, "ann", KEY))
    (tmp_path / "authorized").write_text("admin ann\n")
    gate.refresh()
    assert gate.entry(KEY) is not None
    assert "authorized:1: expected" in caplog.text
    (tmp_path / "authorized").unlink()
    gate.refresh()
    assert gate.entry(KEY) is not None
    (tmp_path / "authorized").write_text("admin ann\n")
    with pytest.raises(TransportError, match="authorized:1"):
        Gate(tmp_path)


def test_files_of_the_gate_are_private_and_damage_is_told(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "state")
    secret = gate.make_token("tcp://h:1", KEY, 60.0).secret
    tokens = tmp_path / "state" / "tokens.json"
    for path in (tokens, tmp_path / "state" / "authorized"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in tokens.read_text()
    tokens.write_text('{"issued": [1]}')
    with pytest.raises(TransportError, match=r"tokens\.json cannot be read"):
        Gate(tmp_path / "state")


# --- addresses ---


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:7600", "tcp://127.8.8.8:*", "tcp://localhost:1", "tcp://[::1]:7600"]
)
def test_on_loopback_every_user_of_the_machine_is_let_in_only_if_that_is_said(address: str) -> None:
    check_address(address, encrypted=True)
    check_address(address, encrypted=False, any_local_user=True)
    with pytest.raises(
        AddressError, match=r"every user of this machine.*keys only.*ipc://PATH.*--allow-any-local-user"
    ):
        check_address(address, encrypted=False)


def test_a_unix_socket_needs_no_keys() -> None:
    check_address("ipc:///run/n", encrypted=False)


@pytest.mark.parametrize(
    ("path", "says"),
    [("/" + "x" * 107, "at most 107 bytes, and this one has 108"), ("@nimbusd", "names no file"), ("*", "no file")],
)
def test_a_unix_socket_needs_a_file_with_a_path_that_the_kernel_takes(path: str, says: str) -> None:
    with pytest.raises(AddressError, match=says):
        check_address(f"ipc://{path}", encrypted=False)


@pytest.mark.parametrize(
    "address",
    ["tcp://*:7600", "tcp://0.0.0.0:7600", "tcp://10.0.0.1:7600", "tcp://[::]:7600", "tcp://eth0:1", "tcp://127.0.0.1.evil.org:1"],
)  # fmt: skip
def test_addresses_that_others_can_reach_need_keys(address: str) -> None:
    check_address(address, encrypted=True)
    with pytest.raises(AddressError, match="keys only: make them by `nimbusctl keygen`"):
        check_address(address, encrypted=False, any_local_user=True)


@pytest.mark.parametrize(
    "address", ["", "10.0.0.1:7600", "tcp://host", "tcp://host:port", "tcp://host:99999", "udp://h:1", "tcp://a b:1", "ipc://"]
)  # fmt: skip
def test_malformed_addresses_are_told(address: str) -> None:
    with pytest.raises(AddressError, match="address"):
        check_address(address, encrypted=True)
