"""A connection that is closed under a client who still sends: it gets its answer, and no reset."""

import time

import gevent
import pytest
from gevent import socket

from app.ops import hearing_out
from app.ops.hearing_out import hear_out

ANSWER = b"HTTP/1.1 413 X\r\n\r\n"


@pytest.fixture
def pair():
    """A connection over TCP: the gateway's end, and the client's."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    yield ours, client
    ours.close()
    client.close()


def answered(ours):
    """Answer and close; the seconds that the client was heard out."""
    ours.sendall(ANSWER)
    began = time.monotonic()
    hear_out(ours)
    ours.close()
    return time.monotonic() - began


def sending(client, piece, pause):
    """Send for ever, as a client does that does not listen."""
    try:
        while True:
            client.sendall(piece)
            gevent.sleep(pause)
    except OSError as error:
        return error


def all_of(client):
    text = b""
    while piece := client.recv(65_536):
        text += piece
    return text


def test_who_leaves_is_not_waited_for(pair):
    ours, client = pair
    client.sendall(b"x" * 1000)

    def read_and_leave():
        assert all_of(client) == ANSWER
        client.close()

    reader = gevent.spawn(read_and_leave)
    assert answered(ours) < hearing_out.SILENCE / 2
    reader.get(timeout=5)


def test_who_is_silent_is_left(pair):
    ours, client = pair
    client.sendall(b"x" * 1000)
    assert hearing_out.SILENCE * 0.9 < answered(ours) < hearing_out.HEARING
    assert all_of(client) == ANSWER


def test_who_goes_on_for_ever_has_his_time(pair, monkeypatch):
    monkeypatch.setattr(hearing_out, "HEARING", 1.5)
    monkeypatch.setattr(hearing_out, "SILENCE", 0.5)
    ours, client = pair
    sender = gevent.spawn(sending, client, b"{", 0.05)
    heard = gevent.spawn(answered, ours)
    assert all_of(client) == ANSWER  # and its end, while more is being sent
    assert not sender.ready()
    assert 1.4 < heard.get(timeout=10) < 5
    assert isinstance(sender.get(timeout=5), ConnectionError)


def test_a_large_body_is_read_to_its_end(pair):
    ours, client = pair

    def send_then_read():
        client.sendall(b"x" * 20_000_000)
        answer = all_of(client)
        client.close()
        return answer

    sender = gevent.spawn(send_then_read)
    assert answered(ours) < hearing_out.HEARING
    assert sender.get(timeout=5) == ANSWER


def test_who_has_gone_is_no_fault(pair):
    ours, client = pair
    client.close()
    hear_out(ours)
    ours.close()
    hear_out(ours)
