"""What only Redis has: a network to cross for each command, and a memory that can be emptied."""

import pytest
import redis

from app.pool.seats import Full, Plan, Seat
from app.pool.state.leases import Held
from app.pool.state.redis_leases import RedisLeases
from app.pool.state.redis_link import RedisLink
from tests.redis_server import RedisServer

PLAN = Plan(((Seat("a", 1),),), "in_order", "m")


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path) as running:
        yield running


@pytest.fixture
def book(server):
    opened = RedisLeases(RedisLink(server.url))
    yield opened
    opened.close()


def test_a_lease_costs_one_round_trip_to_take_and_one_to_return(server, book):
    assert not isinstance(book.take(PLAN, "warm", None), Full)
    book.give_back(("warm", "a"))
    with redis.Redis(port=server.port) as client:
        client.config_resetstat()
        for number in range(10):
            assert not isinstance(book.take(PLAN, f"t{number}", None), Full)
            book.give_back((f"t{number}", "a"))
        calls = client.info("commandstats")
    assert sum(stat["calls"] for name, stat in calls.items() if "eval" in name) == 20


def test_a_flushed_server_learns_again_what_is_held(server, book):
    taken = book.take(PLAN, "held", None)
    assert not isinstance(taken, Full)
    with redis.Redis(port=server.port) as client:
        client.flushall()
        client.script_flush()
    assert book.renew([Held("held", "a", 1)]) == []
    assert isinstance(book.take(PLAN, "next", None), Full)
    book.give_back(("held", "a"))
    assert not isinstance(book.take(PLAN, "later", None), Full)
