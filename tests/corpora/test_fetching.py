"""Fetching: a file is whole and right or not there, and no silence lasts."""

import hashlib
import socket
import threading

import pytest
from local_server import CONTENT, serving

from microformer.corpora import fetching
from microformer.corpora.fetching import NoNetwork, fetch
from microformer.errors import DataError, FileError

SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving() as (address, _):
        yield address


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.4)


def test_nothing_waits_longer_than_five_seconds():
    assert fetching.STALL_SECONDS == 5


@pytest.mark.parametrize("path", ["/good", "/moved"])
def test_a_file_is_fetched_whole(path, server, tmp_path):
    seen = []

    fetch(f"{server}{path}", tmp_path / "new" / "text.txt", SHA256, lambda done, total: seen.append((done, total)))

    assert (tmp_path / "new" / "text.txt").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_not_fetched_again(tmp_path):
    with serving() as (address, asked):
        for _ in range(2):
            fetch(f"{address}/good", tmp_path / "text.txt", SHA256)

    assert asked == ["/good"]


def test_two_who_want_the_same_file_fetch_it_once(tmp_path):
    with serving() as (address, asked):
        threads = [
            threading.Thread(target=fetch, args=(f"{address}/good", tmp_path / "text.txt", SHA256)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert asked == ["/good"]
    assert (tmp_path / "text.txt").read_bytes() == CONTENT


def test_another_file_than_expected_is_refused_and_is_no_want_of_a_network(server, tmp_path):
    with pytest.raises(DataError, match="another SHA-256") as raised:
        fetch(f"{server}/lies", tmp_path / "text.txt", SHA256)

    assert not isinstance(raised.value, NoNetwork)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_an_http_error_is_named_and_is_no_want_of_a_network(server, tmp_path):
    with pytest.raises(DataError, match="the server answered 404") as raised:
        fetch(f"{server}/nothing", tmp_path / "text.txt", SHA256)

    assert not isinstance(raised.value, NoNetwork)


@pytest.mark.parametrize("path", ["/silent", "/stalls"])
def test_a_server_that_falls_silent_is_given_up_soon(path, tmp_path, impatient):
    with serving() as (address, asked):
        with pytest.raises(NoNetwork, match="can't be fetched"):
            fetch(f"{address}{path}", tmp_path / "text.txt", SHA256)

        assert set(asked) == {path}  # and it was still silent
    assert not (tmp_path / "text.txt").exists()


def test_a_name_lookup_that_never_ends_is_given_up_soon(tmp_path, impatient, monkeypatch):
    released = threading.Event()
    answered = threading.Event()

    def never(*args, **kwargs):
        released.wait(30)
        answered.set()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)

    with pytest.raises(NoNetwork, match=r"nothing came for 0\.4 seconds"):
        fetch("http://somewhere.invalid/text", tmp_path / "text.txt", SHA256)

    assert not answered.is_set()
    released.set()


def test_a_name_that_is_not_known_is_want_of_a_network(tmp_path, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(NoNetwork, match="no connection to the server"):
        fetch("http://somewhere.invalid/text", tmp_path / "text.txt", SHA256)


def test_a_connection_that_breaks_leaves_no_half_a_file_and_can_be_tried_again(server, tmp_path):
    with pytest.raises(NoNetwork, match="broke half-way"):
        fetch(f"{server}/breaks", tmp_path / "text.txt", SHA256)
    assert not (tmp_path / "text.txt").exists()

    fetch(f"{server}/good", tmp_path / "text.txt", SHA256)
    assert (tmp_path / "text.txt").read_bytes() == CONTENT


def test_what_broke_off_is_gone_on_with(tmp_path):
    with serving() as (address, asked):
        fetch(f"{address}/resumed", tmp_path / "text.txt", SHA256)

    assert (tmp_path / "text.txt").read_bytes() == CONTENT
    assert len(asked) == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["text.txt"]


def test_what_broke_off_is_gone_on_with_by_the_next_program(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    seen = []
    with serving() as (address, _):
        with pytest.raises(NoNetwork):
            fetch(f"{address}/resumed", tmp_path / "text.txt", SHA256)
        assert not (tmp_path / "text.txt").exists()
        fetch(f"{address}/resumed", tmp_path / "text.txt", SHA256, lambda done, total: seen.append((done, total)))

    assert (tmp_path / "text.txt").read_bytes() == CONTENT
    assert seen[0][0] > len(CONTENT) // 2
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path):
    with serving() as (address, asked):
        fetch(f"{address}/resumed-other", tmp_path / "text.txt", SHA256)

    assert (tmp_path / "text.txt").read_bytes() == CONTENT
    assert len(asked) == 2


def test_a_server_that_is_busy_is_asked_again(tmp_path):
    with serving() as (address, asked):
        fetch(f"{address}/busy", tmp_path / "text.txt", SHA256)

    assert (tmp_path / "text.txt").read_bytes() == CONTENT
    assert len(asked) == 3


def test_a_server_that_lies_about_the_length_is_found_out(server, tmp_path):
    with pytest.raises(DataError, match="another SHA-256"):
        fetch(f"{server}/short", tmp_path / "text.txt", SHA256)
    assert not (tmp_path / "text.txt").exists()


@pytest.mark.parametrize("path", ["/good", "/moved", "/unknown-length"])
def test_a_file_of_which_no_checksum_is_known_is_fetched_once(path, monkeypatch):
    with serving() as (address, asked):
        first = fetching.fetch_once(f"{address}{path}")
        assert fetching.fetch_once(f"{address}{path}") == first

    assert first.read_bytes() == CONTENT
    assert len([one for one in asked if one == path]) == 1


@pytest.mark.parametrize("path", ["/breaks", "/stalls"])
def test_half_a_file_of_which_no_checksum_is_known_is_never_taken_for_a_whole_one(path, server, impatient):
    with pytest.raises(NoNetwork):
        fetching.fetch_once(f"{server}{path}")
    with pytest.raises(NoNetwork):
        fetching.fetch_once(f"{server}{path}")


def test_a_damaged_file_in_place_is_replaced(server, tmp_path):
    (tmp_path / "text.txt").write_bytes(CONTENT[:100])

    fetch(f"{server}/good", tmp_path / "text.txt", SHA256)

    assert (tmp_path / "text.txt").read_bytes() == CONTENT


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(FileError, match="file"):
        fetch(f"{server}/good", tmp_path / "file" / "text.txt", SHA256)
