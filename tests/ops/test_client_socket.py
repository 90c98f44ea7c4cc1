"""What belongs together leaves in one piece, in the right order, and all of it."""

import gevent
import pytest
from gevent import socket

from app.ops.client_socket import ClientSocket

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Recorded:
    """A socket that keeps the pieces it was given."""

    def __init__(self):
        self.pieces = []

    def sendall(self, data):
        self.pieces.append(bytes(data))

    def send(self, data):
        self.pieces.append(data)
        return len(data)

    def sendfile(self, file, offset=0, count=None):
        self.pieces.append(file[offset:][:count])
        return len(self.pieces[-1])

    def fileno(self):
        return 42


@pytest.fixture
def recorded():
    return Recorded()


@pytest.fixture
def client(recorded):
    return ClientSocket(recorded)


def test_the_head_leaves_with_what_follows(client, recorded):
    client.sendall(HEAD)
    assert recorded.pieces == []
    client.sendall(b"one")
    client.sendall(b"two")
    client.flush()
    assert recorded.pieces == [HEAD + b"one", b"two"]


def test_the_last_piece_leaves_with_the_end(client, recorded):
    client.sendall(HEAD)
    client.sendall(b"one")
    client.hold_next()
    client.sendall(b"two")
    assert recorded.pieces == [HEAD + b"one"]
    client.sendall(b"end")
    assert recorded.pieces == [HEAD + b"one", b"twoend"]


def test_an_answer_of_one_piece_is_one(client, recorded):
    client.sendall(HEAD)
    client.hold_next()
    client.sendall(b"all")
    client.sendall(b"end")
    assert recorded.pieces == [HEAD + b"allend"]


@pytest.mark.parametrize("hold", [False, True])
def test_nothing_is_kept_for_ever(client, recorded, hold):
    if hold:
        client.hold_next()
        client.sendall(b"last")
    else:
        client.sendall(HEAD)
    client.flush()
    client.flush()
    assert recorded.pieces == [b"last" if hold else HEAD]


def test_other_ways_to_send_keep_the_order(client, recorded):
    client.sendall(HEAD)
    assert client.sendfile(b"a file", offset=2, count=4) == 4  # as gunicorn does
    client.sendall(HEAD)
    assert client.send(b"more") == 4
    assert recorded.pieces == [HEAD, b"file", HEAD, b"more"]


def test_the_rest_is_the_sockets_own(client):
    assert client.fileno() == 42


def test_a_client_that_is_gone_is_no_error_at_the_end():
    ours, theirs = socket.socketpair()
    client = ClientSocket(ours)
    client.sendall(HEAD)
    theirs.close()
    client.flush()
    with pytest.raises(OSError, match="Broken pipe"):
        client.sendall(b"x" * 10)
    ours.close()


def test_a_slow_reader_gets_all_of_it():
    ours, theirs = socket.socketpair()
    client = ClientSocket(ours)
    data = bytes(range(256)) * 40_000
    client.sendall(HEAD)
    writer = gevent.spawn(client.sendall, data)
    received = bytearray()
    while len(received) < len(HEAD) + len(data):
        received += theirs.recv(1 << 16)
    writer.get(timeout=10)
    assert bytes(received) == HEAD + data
    ours.close()
    theirs.close()
