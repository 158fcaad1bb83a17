"""The supervisor's reading of /proc and of its channel, without starting one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from symphony.hosts.supervisor import (
    Channel,
    ChannelClosed,
    ProcStat,
    descendants,
    read_environment,
    read_stat,
    signal_process,
)


def stat(pid: int, ppid: int, name: str = "sh", state: str = "S") -> ProcStat:
    tail = f"{state} {ppid} {pid} {pid} 0 -1 " + " ".join(["0"] * 13) + " 4711 0 0\n"
    return ProcStat(pid, f"{pid} ({name}) {tail}".encode())


def test_a_process_may_have_any_name():
    for name in ("sh", "a b", ") R 1 2 3", "((", ""):
        parsed = stat(7, 3, name)
        assert (parsed.ppid, parsed.pgrp, parsed.session) == (3, 7, 7)
        assert parsed.start_ticks == 4711
        assert parsed.alive
    assert not stat(7, 3, state="Z").alive


def test_our_own_stat_is_read_and_a_missing_one_is_none():
    own = read_stat(os.getpid())
    assert own is not None
    assert (own.ppid, own.session) == (os.getppid(), os.getsid(0))
    assert read_stat(2**22 + 1) is None
    assert b"PATH" in read_environment(os.getpid())
    assert read_environment(2**22 + 1) == {}


def test_descendants_hold_the_roots_and_all_below():
    table = {p: stat(p, parent) for p, parent in [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1)]}
    assert descendants(table, {5}) == {5, 6, 7}
    assert descendants(table, {6, 8, 99}) == {6, 7, 8}


def test_a_later_process_with_the_same_number_is_not_signalled():
    own = read_stat(os.getpid())
    assert own is not None
    assert signal_process(own, 0)
    own.start_ticks += 1
    assert not signal_process(own, 0)
    own.pid = 2**22 + 1
    assert not signal_process(own, 0)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    daemon, theirs = socket.socketpair()
    with daemon, theirs:
        yield daemon, Channel(theirs)


def frame(**message: object) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


def test_messages_are_read_from_any_pieces(pair):
    daemon, channel = pair
    data = frame(op="stop", id=1, grace_s=0.5) + frame(op="stop", id=2, grace_s=0.0)
    seen = []
    for index in range(len(data)):
        daemon.send(data[index : index + 1])
        seen += [message["id"] for message, _ in channel.receive()]
    assert seen == [1, 2]
    daemon.send(data)
    assert [message["id"] for message, _ in channel.receive()] == [1, 2]
    assert list(channel.receive()) == []


def test_descriptors_go_with_their_message_and_are_not_inherited(pair):
    daemon, channel = pair
    read, write = os.pipe()
    data = frame(op="spawn", id=1)
    daemon.send(frame(op="stop", id=0, grace_s=0))
    socket.send_fds(daemon, [data[:3]], [read, write, write])
    daemon.send(data[3:])
    socket.send_fds(daemon, [frame(op="spawn", id=2)], [write, write, write])
    got: dict[object, list[int]] = {}
    while len(got) < 3:
        got.update({message["id"]: fds for message, fds in channel.receive()})
    assert got[0] == []
    assert [len(got[1]), len(got[2])] == [3, 3]
    assert not any(os.get_inheritable(fd) for fd in got[1] + got[2])
    os.write(got[1][1], b"x")
    assert os.read(got[1][0], 1) == b"x"
    for fd in [read, write, *got[1], *got[2]]:
        os.close(fd)


def test_the_end_of_the_channel_is_noticed_in_both_directions(pair):
    daemon, channel = pair
    daemon.close()
    with pytest.raises(ChannelClosed):
        list(channel.receive())
    with pytest.raises(ChannelClosed):
        channel.send(event="ready")


def test_what_a_full_channel_does_not_take_is_kept_and_sent_later(pair):
    daemon, channel = pair
    for number in range(300):
        channel.send(event="x" * 10_000, id=number)
    assert channel.pending
    data = bytearray()
    while channel.pending:
        data += daemon.recv(1 << 20)
        channel.flush()
    daemon.setblocking(False)
    while True:
        try:
            data += daemon.recv(1 << 20)
        except BlockingIOError:
            break
    size = int.from_bytes(data[:4], "big")
    assert len(data) >= 300 * 10_000
    assert json.loads(data[4 : 4 + size])["id"] == 0


def test_a_frame_that_no_daemon_sends_closes_the_channel(pair):
    daemon, channel = pair
    daemon.send((2**31).to_bytes(4, "big"))
    with pytest.raises(ChannelClosed):
        list(channel.receive())
