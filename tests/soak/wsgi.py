"""The gateway's application with one more page, ``/_soak``: what the process holds right now.

Not counted are the connections to the upstream that lie ready for the next request: there are as
many as were ever needed at once.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import greenlet
from flask import jsonify

from app.relay.attempt import Attempt
from wsgi import app


@app.get("/_soak")
def _holdings():
    """Return figures of a moment in which nothing is under way, besides this request."""
    gateway = app.extensions["gateway"]
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return jsonify(
        live=gateway.relay.live,
        rss=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        fds=len(os.listdir("/proc/self/fd")) - _kept(gateway.upstream),
        threads=len(os.listdir("/proc/self/task")),
        greenlets=sum(
            isinstance(each, greenlet.greenlet) and not each.dead for each in gc.get_objects()
        ),
        attempts=sum(isinstance(each, Attempt) for each in gc.get_objects()),
        leases=sum(view.in_flight for view in gateway.pool.snapshot()),
    )


def _kept(upstream) -> int:
    """Return how many connections lie ready; one that nobody gave back is not among them."""
    pools = [
        manager.pools[key]
        for session in upstream._sessions.values()
        for adapter in set(session.adapters.values())
        for manager in (adapter.poolmanager, *adapter.proxy_manager.values())
        for key in manager.pools.keys()  # noqa: SIM118 - it can't be iterated over
    ]
    ready = [connection for pool in pools for connection in list(pool.pool.queue)]
    return sum(connection is not None and connection.sock is not None for connection in ready)
