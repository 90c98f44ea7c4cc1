"""Attempts know which request they work for, and take nothing else of it along."""

import contextvars

from app.backend.errors import Fault
from app.relay.trace import REQUEST_ID
from tests.relay.world import World, error

HELD = contextvars.ContextVar("held", default="")
"""Stands for what a server keeps in its context: Flask's request, with the whole body."""


def test_every_attempt_knows_its_request_and_holds_nothing_else():
    world = World(a=[[error(Fault.QUOTA, 429)]], b=[["x", "."]])
    run, seen = world.upstream.run, []

    def watched(*args):
        seen.append((REQUEST_ID.get(), HELD.get()))
        yield from run(*args)

    world.upstream.run = watched

    def request():
        REQUEST_ID.set("req_1")
        HELD.set("the body")
        return world.run()

    assert contextvars.Context().run(request) == "x.end"
    assert seen == [("req_1", ""), ("req_1", "")]
    contextvars.Context().run(world.run)  # others have been here before
    assert seen[-1] == ("", "")
