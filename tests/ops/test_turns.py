"""Turns: so many in each round of the loop, first come first served."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from app.ops.worker import AT_ONCE, GatewayWorker

CODE = """
import gevent
from app.ops.turns import Turns

turns, rounds, order = Turns(3), {}, []

def one(name):
    turns.take()
    order.append(name)
    here = gevent.get_hub().loop.iteration
    rounds[here] = rounds.get(here, 0) + 1

crowd = [gevent.spawn(one, number) for number in range(20)]
gevent.sleep(0)  # all have asked, and most wait
crowd[10].kill(block=False)
gevent.joinall(crowd, timeout=10)
assert order == [number for number in range(20) if number != 10], order
assert max(rounds.values()) == 3, rounds

rounds.clear()
for number in range(5):  # a round later there is no crowd
    gevent.sleep(0.001)
    one(number)
assert set(rounds.values()) == {1}, rounds
print("good")
"""


def test_so_many_begin_in_each_round_in_the_order_they_came():
    ran = subprocess.run(
        [sys.executable, "-c", CODE], check=False, capture_output=True, text=True, timeout=30
    )
    assert ran.stdout == "good\n", ran.stderr


@pytest.mark.parametrize(("workers", "accepted"), [(1, AT_ONCE), (2, 1)])
def test_no_more_connections_are_accepted_at_once(workers, accepted):
    """Several workers take turns at one listening socket, or one would have them all."""
    worker = GatewayWorker.__new__(GatewayWorker)
    worker.cfg = SimpleNamespace(workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert worker.server_class(listener, spawn="raw").max_accept == accepted
