"""One request under way: the generator that applies retry and rotation."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any, Final

from app.backend.bell import new_bell
from app.backend.errors import Fault, UpstreamError
from app.backend.rests import Rests
from app.backend.upstream import Aborted, Call, Upstream
from app.pool.pool import AllBusy, AllCooling, AllTried, ClientPool, Lease, PoolError
from app.relay.attempt import Attempt, What, lost
from app.relay.budget import RetryBudget
from app.relay.course import Course, Next
from app.relay.errors import ClientGone, Failure, RelayError
from app.relay.keepalive import KeepAliveTimer, Silence
from app.relay.mailbox import READ_AHEAD, Mailbox, Report
from app.relay.ports import AnswerTranslator, Chunk, Event, Job
from app.relay.runners import Runners
from app.relay.trace import Trace
from app.translate.errors import BadAnswer, InvalidRequest, Unsuited

log = logging.getLogger("gateway.relay")


class Signal:
    """Something other than an attempt's report; compared by identity."""

    def __init__(self, name: str) -> None:
        self.name = name


KEEPALIVE: Final = Signal("keep-alive")
"""Yielded in place of events when the client has heard nothing for the interval."""
_GONE: Final = Signal("the client is gone")
_STOP: Final = Signal("the process ends")


class Exchange:
    """Runs one job to its end. Iterate `events` once; `close` it whatever happens.

    `client_gone` and `stop` may be called from any thread.
    """

    def __init__(
        self,
        job: Job,
        *,
        pool: ClientPool,
        upstream: Upstream,
        timer: KeepAliveTimer,
        request_retry: int,
        quota_switch_project: bool,
        pool_wait_timeout: float,
        budget: RetryBudget,
        runners: Runners,
        rests: Rests | None = None,
    ) -> None:
        self.trace = Trace()
        self.ended = False
        """Whether all events have been yielded."""
        self.job = job
        """What is being asked; another job once the answer was resumed."""
        self._pool = pool
        self._upstream = upstream
        self._timer = timer
        self._pool_wait = pool_wait_timeout
        self._bell = new_bell()
        self._runners = runners
        self._rests = rests
        self._mailbox = Mailbox(self._bell)
        self._silence = Silence(self._tick)
        self._course = Course(request_retry, quota_switch_project, budget)
        self._attempt: Attempt | None = None
        self._sent = False
        self._last_error: UpstreamError | None = None

    def events(self) -> Iterator[list[Event] | Signal]:
        """Yield lists of events as they arrive, `KEEPALIVE` when there are none for long.

        A buffered job yields all its events at the end. Raises `RelayError` when the request
        failed for good, before or after events were yielded, and `ClientGone`.
        """
        self._timer.watch(self._silence)
        step = Next()
        try:
            while True:
                attempt = self._begin(step)
                try:
                    yield from self._follow(attempt)
                except UpstreamError as error:
                    step = self._after(attempt, error)
                else:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """End the attempt under way, return its lease, stop the keep-alive; idempotent."""
        self._silence.over()
        self._mailbox.close()
        if self._attempt:
            self._attempt.close()
        self._bell.close()

    def client_gone(self) -> None:
        """Tell the exchange that nobody listens any more."""
        self._mailbox.signal(None, _GONE)

    def stop(self) -> None:
        """End the exchange with `Failure.STOPPING`."""
        self._mailbox.signal(None, _STOP)

    def _tick(self) -> None:
        self._mailbox.signal(None, KEEPALIVE)

    def _begin(self, step: Next) -> Attempt:
        attempt = Attempt(
            self.job,
            self._mailbox,
            self._pool,
            self._upstream,
            call=Call(self._bell, self._rests),
            pool_wait=self._pool_wait,
            trace=self.trace,
            runners=self._runners,
        )
        self._attempt = attempt
        attempt.start(self._course, step)
        return attempt

    def _follow(self, attempt: Attempt) -> Iterator[list[Event] | Signal]:
        """Yield what one attempt brings; raises `UpstreamError` when it fails.

        Events that have arrived together leave together, as far as `READ_AHEAD` goes; none waits
        for one that has not.
        """
        translator: AnswerTranslator | None = None
        ready: list[Event] = []
        buffered, mailbox, silence = self.job.buffered, self._mailbox, self._silence
        ended, held = False, 0
        while not ended:
            if not ready or buffered:
                item: Report | None = mailbox.get()
            else:
                item = mailbox.poll() if held < READ_AHEAD else None
            if item is None:
                yield self._leaving(ready)
                silence.broken()
                ready, held = [], 0
                continue
            source, what, value, size = item
            if source is not attempt and source is not None:
                continue
            try:
                if source is None:
                    yield self._signalled(what)
                    silence.broken()
                    continue
                if what is What.FAILED:
                    raise self._told(value)
                if what is What.OPENED:
                    ready = yield from self._read(attempt, *value)
                    break
                if translator is None:
                    translator = self.job.translator(self._held_lease(attempt))
                ready += self._translated(translator, what, value)
                held += size
            except (UpstreamError, RelayError):
                if ready and not buffered:  # all that came before reaches the client
                    yield self._leaving(ready)
                raise
            ended = what is What.END or translator.done
        self._succeeded(attempt)
        self.ended = True
        if ready:
            yield self._leaving(ready)
            silence.broken()

    def _read(
        self,
        attempt: Attempt,
        first: Chunk | None,
        chunks: Generator[Chunk | None, None, None],
    ) -> Generator[list[Event] | Signal, None, list[Event]]:
        """Yield what an answer brings that is read here, and return the last events of it.

        All that had arrived leaves together before the answer pauses.
        """
        translator = self.job.translator(self._held_lease(attempt))
        buffered, mailbox, silence, call = (
            self.job.buffered,
            self._mailbox,
            self._silence,
            attempt.call,
        )
        ready: list[Event] = []
        left = 0
        try:
            with closing(chunks):
                for chunk in chain((first,), chunks):
                    if chunk is not None:
                        ready += translator.feed(chunk)
                        if translator.notes:
                            self._keep(translator)
                        if translator.done:
                            return ready
                        if call.received - left < READ_AHEAD:
                            continue
                    left = call.received
                    if ready and not buffered:
                        yield self._leaving(ready)
                        silence.broken()
                        ready = []
                    while mailbox.waiting:
                        source, what, value, _ = mailbox.get()
                        if source is None:
                            yield self._signalled(what)
                            silence.broken()
                        elif source is attempt:
                            raise self._told(value)
                    if chunk is None:
                        call.wait()
                ready += self._translated(translator, What.END, None)
        except (UpstreamError, RelayError, BadAnswer, Aborted) as error:
            if ready and not buffered:  # all that came before reaches the client
                yield self._leaving(ready)
            raise self._meant(error) from None
        return ready

    def _meant(
        self, error: UpstreamError | RelayError | BadAnswer | Aborted
    ) -> UpstreamError | RelayError:
        """Return what an answer's end by ``error`` is to the retry."""
        if isinstance(error, Aborted):
            return lost()
        return self._bad(error) if isinstance(error, BadAnswer) else error

    def _translated(self, translator: AnswerTranslator, what: What, value: Any) -> list[Event]:
        try:
            events = translator.feed(value) if what is What.CHUNK else translator.finish()
        except BadAnswer as bad:
            raise self._bad(bad) from None
        if translator.notes:
            self._keep(translator)
        return events

    def _keep(self, translator: AnswerTranslator) -> None:
        self.job.keep(translator.notes)
        translator.notes.clear()

    def _leaving(self, events: list[Event]) -> list[Event]:
        if not self._sent:
            self._sent = True
            self.job.committed()
            self.trace.first_event()
        return events

    def _succeeded(self, attempt: Attempt) -> None:
        self._pool.succeeded(self._held_lease(attempt))
        if attempt.record:
            attempt.record.end("ok", 200)
        attempt.close()

    def _signalled(self, signal: Signal) -> Signal:
        if signal is _GONE:
            raise ClientGone
        if signal is _STOP:
            raise RelayError(
                Failure.STOPPING, "The gateway is shutting down; send the request again."
            )
        if signal is KEEPALIVE:
            self.trace.keepalives += 1
        return signal

    def _after(self, attempt: Attempt, error: UpstreamError) -> Next:
        """Give the pool its due, and return how to go on; raises `RelayError` when not at all."""
        lease = self._held_lease(attempt)
        # Its frames know this exchange: the circle would keep the request long after its end.
        self._last_error = error.with_traceback(None)
        if attempt.record:
            attempt.record.end(_outcome(error), error.status)
        self._tell_pool(error, lease)
        try:
            step = self._course.after(error, lease)
            if self._sent:
                self._go_on(error)
        except RelayError as ended:
            attempt.close()
            self.trace.retry_refused = self._course.retry_refused
            if ended.failure is Failure.QUOTA:
                self._tell_reset(ended)
            raise
        attempt.close(keep_lease=step.lease is not None)
        return step

    def _go_on(self, error: UpstreamError) -> None:
        """Have the next attempt resume the answer; raises `RelayError` where it can't."""
        resumed = self.job.resume()
        if resumed is None:
            raise self._course.ended(error)
        self.job = resumed

    def _tell_reset(self, ended: RelayError) -> None:
        """The pool knows better than ``RetryInfo``, which says seconds when a day is out."""
        wait = self._pool.resets_in(self.job.model)
        if wait is not None:
            ended.retry_after = wait

    def _tell_pool(self, error: UpstreamError, lease: Lease) -> None:
        account = lease.account
        match error.fault:
            case Fault.QUOTA if error.exhausted and self.job.spends_quota:
                self._pool.cool_down(lease, error.exhausted)
            case Fault.CREDENTIAL if error.per_project:
                self._pool.mark_project_unusable(account, lease.project, error.message)
            case Fault.CREDENTIAL:
                self._pool.mark_unusable(account, error.message)
            case Fault.UNAUTHENTICATED if self._course.was_refreshed(account.name):
                self._pool.mark_unusable(account, f"refused with a fresh token: {error.message}")
            case Fault.TIMEOUT | Fault.UNAVAILABLE | Fault.BROKEN:
                self._pool.failed(lease)
            case _:
                pass

    def _told(self, error: BaseException) -> UpstreamError | RelayError:
        """Return what a failed attempt's report means."""
        if isinstance(error, UpstreamError):
            return error
        if isinstance(error, Unsuited):
            return UpstreamError(Fault.UNSUITED, error.message, reason="not sent")
        attempt = self._attempt
        if attempt and attempt.record and isinstance(error, InvalidRequest):
            attempt.record.end("not sent")
        if attempt:
            attempt.close()
        if isinstance(error, InvalidRequest):  # what shows only once the target is known
            return RelayError(Failure.REJECTED, error.message)
        if isinstance(error, PoolError):
            return self._nobody(error)
        return RelayError(Failure.INTERNAL, "The gateway failed on this request; it is in its log.")

    def _nobody(self, error: PoolError) -> RelayError:
        """Return what the client gets when the pool has no account to give."""
        model = self.job.model
        if isinstance(error, AllCooling):
            return RelayError(
                Failure.QUOTA,
                f"All accounts that serve {model} are out of quota; try again later.",
                retry_after=error.retry_after,
            )
        if isinstance(error, AllBusy):
            return RelayError(
                Failure.BUSY, f"All accounts that serve {model} are busy; try again shortly."
            )
        last = self._last_error
        if isinstance(error, AllTried) and last and last.fault is not Fault.CREDENTIAL:
            return self._course.ended(last)
        log.warning("no account can serve %s: %s", model, error)
        return RelayError(Failure.NO_ACCOUNT, f"No account can serve {model} right now.")

    def _bad(self, bad: BadAnswer) -> UpstreamError | RelayError:
        if bad.retryable:
            return UpstreamError(Fault.BROKEN, bad.message, reason="bad answer")
        return RelayError(Failure.BROKEN, bad.message)

    @staticmethod
    def _held_lease(attempt: Attempt) -> Lease:
        if attempt.lease is None:
            raise RuntimeError("an attempt reported before it had a lease")
        return attempt.lease


def _outcome(error: UpstreamError) -> str:
    if error.exhausted:
        return error.exhausted.reason
    return error.reason or error.fault.value
