"""One upstream try, begun in a thread of its own so that the generator never blocks on it.

Once the answer has begun, the generator reads it itself: a hop for each event, and a thread for
each stream, would cost more than the translation. Only an answer that can't pause (compressed, or
not chunked) is read to its end in the thread, which posts the chunks.
"""

from __future__ import annotations

import logging
import threading
from enum import IntEnum
from typing import TYPE_CHECKING

from app.backend.errors import Fault, UpstreamError
from app.backend.upstream import Aborted, Call, Upstream
from app.pool.pool import Cancelled, CancelToken, ClientPool, Lease, PoolError, Wanted
from app.relay.mailbox import Mailbox
from app.relay.trace import REQUEST_ID, AttemptRecord
from app.translate.errors import InvalidRequest

if TYPE_CHECKING:
    from app.relay.course import Course, Next
    from app.relay.ports import Job
    from app.relay.runners import Runners
    from app.relay.trace import Trace

log = logging.getLogger("gateway.relay")


class What(IntEnum):
    """What an attempt reports; CHUNK comes first because nearly all reports are chunks."""

    CHUNK = 0
    END = 1
    FAILED = 2
    OPENED = 3
    """With the first chunk (or None) and the answer, which pauses: the generator reads on."""


class Attempt:
    """Leases an account, opens the upstream and posts the answer, or its chunks, to the mailbox.

    ``close`` may come at any moment from the generator's thread: it ends the wait for an account
    or the upstream call, and returns the lease exactly once, whoever holds it by then.
    """

    def __init__(
        self,
        job: Job,
        mailbox: Mailbox,
        pool: ClientPool,
        upstream: Upstream,
        *,
        call: Call,
        pool_wait: float,
        trace: Trace,
        runners: Runners,
    ) -> None:
        self.call = call
        self.lease: Lease | None = None
        self.record: AttemptRecord | None = None
        self._job = job
        self._mailbox = mailbox
        self._pool = pool
        self._upstream = upstream
        self._pool_wait = pool_wait
        self._trace = trace
        self._runners = runners
        self._cancel = CancelToken()
        self._lock = threading.Lock()
        self._closed = False

    def start(self, course: Course, step: Next) -> None:
        """Run in another thread, on ``step.lease`` if it has one."""
        self.lease = step.lease
        if step.lease:
            self._pool.hand_over(step.lease, self._lost)
        wanted = Wanted(
            model=self._job.model,
            affinity_key=self._job.affinity_key if self._pool.by_conversation else "",
            preferred_account=step.prefer or self._job.preferred_account,
            tried=frozenset(course.tried),
            avoid=frozenset(course.avoid),
        )
        self._runners.start(self._run, (wanted, course, step, REQUEST_ID.get()))

    def close(self, *, keep_lease: bool = False) -> None:
        """End it wherever it is; idempotent. ``keep_lease`` leaves it to the next attempt."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            lease = self.lease
        self._cancel.cancel()
        self.call.abort()
        if self.record:
            self.record.end("hung up")
        if lease and not keep_lease:
            self._pool.release(lease)

    def _run(self, wanted: Wanted, course: Course, step: Next, request_id: str) -> None:
        # Not the whole context: it would keep the server's request, with its body, to the end.
        REQUEST_ID.set(request_id)
        try:
            lease = self.lease or self._acquire(wanted)
            if lease is None:
                return
            # Who has just refused us may have closed its connection, too, and the news of it may
            # still be on its way: that must not cost a retry.
            self.call.after_refusal = bool(self._trace.attempts)
            self.call.fresh_only = step.afresh
            self.record = AttemptRecord(lease.account.name, lease.project)
            self._trace.attempts.append(self.record)
            delay = course.backoff(lease)
            if delay and self.call.wait_aborted(delay):
                return
            if step.refresh:
                self._upstream.refresh(lease.account)
            call, put, read = self.call, self._mailbox.put, 0
            chunks = self._job.open(lease, call, trust_foreign=course.trust_foreign)
            for chunk in chunks:
                if call.pauses:
                    self._mailbox.signal(self, What.OPENED, (chunk, chunks))
                    return
                before, read = read, call.received
                put(self, What.CHUNK, chunk, read - before)
            self._mailbox.signal(self, What.END)
        except (Aborted, Cancelled):
            return
        except (UpstreamError, PoolError, InvalidRequest) as error:
            self._mailbox.signal(self, What.FAILED, error)
        except Exception as error:
            log.exception("an attempt failed for a reason of the gateway's own")
            self._mailbox.signal(self, What.FAILED, error)

    def _lost(self) -> None:
        """End the try: its seat is another process' by now, so it must not go on."""
        self.call.abort()
        self._mailbox.signal(self, What.FAILED, lost())

    def _acquire(self, wanted: Wanted) -> Lease | None:
        lease = self._pool.acquire(
            wanted, timeout=self._pool_wait, cancel=self._cancel, on_lost=self._lost
        )
        with self._lock:
            if not self._closed:
                self.lease = lease
                return lease
        self._pool.release(lease)
        return None


def lost() -> UpstreamError:
    """Return the error of an attempt that was ended because its lease was lost."""
    return UpstreamError(Fault.LOST, "The lease was lost.", reason="lease lost")
