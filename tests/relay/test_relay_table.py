"""Every row of the behaviour table, on a real pool."""

import threading

import pytest

from app.backend.errors import Fault
from app.pool.cooldown import Exhausted
from app.relay.errors import ClientGone, Failure, RelayError
from app.relay.mailbox import CAPACITY, READ_AHEAD
from app.translate.errors import Unsuited
from tests.relay.world import Hang, ScriptedJob, ScriptedUpstream, World, error

ANSWER = "hello.end"
CONSUMING = {
    Fault.FORBIDDEN: (403, Failure.FORBIDDEN),
    Fault.TIMEOUT: (504, Failure.TIMEOUT),
    Fault.UNAVAILABLE: (503, Failure.OVERLOADED),
    Fault.BROKEN: (500, Failure.BROKEN),
}


@pytest.fixture(autouse=True, params=["posted", "read"])
def _way(request, monkeypatch):
    """Who reads the answers: the attempts' threads or the generator."""
    monkeypatch.setattr(ScriptedUpstream, "pausing", request.param == "read")


def failure(world, **how):
    with pytest.raises(RelayError) as caught:
        world.run(**how)
    return caught.value


def test_an_answer_comes_through_and_the_lease_goes_home():
    world = World(a=[["x", "y", "."]])
    assert world.run() == "xy.end"
    assert world.in_flight == {"a": 0}


def test_a_buffered_answer_comes_in_one_piece():
    assert World(a=[["x", "y", "."]]).run(buffered=True) == "xy.end"


def test_quota_cools_down_and_goes_on_without_consuming_a_retry():
    world = World(retry=0, a=[[error(Fault.QUOTA, 429)]], b=[])
    assert world.run() == ANSWER
    assert world.asked == ["a", "b"]
    assert world.state("a").state == "cooling"
    assert world.run() == ANSWER
    assert world.asked == ["a", "b", "b"]


def test_quota_walks_the_accounts_projects_first():
    world = World(
        projects={"a": ("p1", "p2")}, a=[[error(Fault.QUOTA, 429)], [error(Fault.QUOTA, 429)]], b=[]
    )
    assert world.run() == ANSWER
    assert world.upstream.asked == [("a", "p1", True), ("a", "p2", True), ("b", "", True)]


def test_each_account_and_project_is_tried_at_most_once_on_quota():
    instant = Exhausted("minute", 0.0, reason="over at once")
    world = World(a=[[error(Fault.QUOTA, 429, exhausted=instant)]] * 9)
    caught = failure(world)
    assert caught.failure is Failure.QUOTA
    assert world.asked == ["a"]


def test_quota_without_switching_goes_to_the_client():
    world = World(switch=False, a=[[error(Fault.QUOTA, 429, "out of quota")]], b=[])
    caught = failure(world)
    assert (caught.failure, caught.message) == (Failure.QUOTA, "out of quota")
    assert caught.retry_after == 26.0
    assert world.asked == ["a"]
    assert world.state("a").state == "cooling"


def test_a_day_without_quota_is_told_as_such_although_google_says_seconds():
    day = Exhausted("day", 47.0, reason="per-day quota")
    world = World(switch=False, a=[[error(Fault.QUOTA, 429, exhausted=day)]])
    caught = failure(world)
    until = world.state("a").cooldowns[0].until
    assert caught.retry_after == pytest.approx(until - world.state("a").last_used, abs=5)


def test_all_cooling_tells_the_earliest_reset():
    world = World(
        a=[[error(Fault.QUOTA, 429)]],
        b=[[error(Fault.QUOTA, 429, exhausted=Exhausted("minute", 5.0))]],
    )
    caught = failure(world)
    assert caught.failure is Failure.QUOTA
    assert caught.retry_after == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize("fault", CONSUMING)
@pytest.mark.parametrize("buffered", [False, True])
def test_a_consuming_fault_rotates(fault, buffered):
    status, _ = CONSUMING[fault]
    world = World(a=[[error(fault, status)]], b=[])
    assert world.run(buffered=buffered) == ANSWER
    assert world.asked == ["a", "b"]
    assert world.state("a").state == "ready"


@pytest.mark.parametrize("fault", CONSUMING)
def test_a_consuming_fault_ends_in_its_failure_when_retries_are_spent(fault):
    status, expected = CONSUMING[fault]
    world = World(
        retry=2, a=[[error(fault, status, "why")]] * 9, b=[[error(fault, status, "why")]] * 9
    )
    caught = failure(world)
    assert (caught.failure, caught.message, caught.status) == (expected, "why", status)
    assert world.asked == ["a", "b", "a"] or world.asked == ["a", "b", "b"]
    assert world.in_flight == {"a": 0, "b": 0}


@pytest.mark.parametrize("fault", CONSUMING)
def test_no_retry_means_one_attempt(fault):
    world = World(retry=0, a=[[error(fault, 500)]], b=[])
    failure(world)
    assert world.asked == ["a"]


def test_the_same_account_is_asked_again_only_when_there_is_no_other():
    world = World(a=[[error(Fault.BROKEN, 500)]])
    assert world.run() == ANSWER
    assert world.asked == ["a", "a"]


def test_401_refreshes_and_stays():
    world = World(retry=1, a=[[error(Fault.UNAUTHENTICATED, 401)]], b=[])
    assert world.run() == ANSWER
    assert world.asked == ["a", "a"]
    assert world.upstream.refreshed == ["a"]


def test_401_with_a_fresh_token_marks_the_account_and_rotates():
    world = World(a=[[error(Fault.UNAUTHENTICATED, 401)]] * 9, b=[])
    assert world.run() == ANSWER
    assert world.asked == ["a", "a", "b"]
    assert world.state("a").state == "unusable"


def test_a_refresh_that_fails_marks_the_account_and_rotates():
    world = World(a=[[error(Fault.UNAUTHENTICATED, 401)]], b=[])
    world.upstream.refresh_error = error(Fault.CREDENTIAL, 400, "invalid_grant")
    assert world.run() == ANSWER
    assert world.asked == ["a", "b"]
    assert world.state("a").state == "unusable"


def test_a_credential_fault_marks_and_rotates_without_consuming_a_retry():
    world = World(retry=0, a=[[error(Fault.CREDENTIAL, 400, "API key not valid")]], b=[])
    assert world.run() == ANSWER
    assert world.run() == ANSWER
    assert world.asked == ["a", "b", "b"]
    assert world.state("a").reasons == ("API key not valid",)


def test_a_credential_fault_of_one_project_leaves_the_others():
    fault = error(Fault.CREDENTIAL, 403, "SERVICE_DISABLED", per_project=True)
    world = World(projects={"a": ("p1", "p2")}, a=[[fault]])
    assert world.run() == ANSWER
    assert world.upstream.asked == [("a", "p1", True), ("a", "p2", True)]


def test_no_usable_account_is_told_without_a_name():
    world = World(a=[[error(Fault.CREDENTIAL, 400, "API key not valid")]])
    caught = failure(world)
    assert caught.failure is Failure.NO_ACCOUNT
    assert caught.message == "No account can serve gemini-3.8-flash right now."


def test_a_signature_fault_costs_one_clean_retry_on_the_same_account():
    world = World(retry=0, a=[[error(Fault.SIGNATURE, 400)]], b=[])
    assert world.run() == ANSWER
    assert world.upstream.asked == [("a", "", True), ("a", "", False)]


def test_a_second_signature_fault_goes_to_the_client():
    world = World(a=[[error(Fault.SIGNATURE, 400, "Invalid thought signature.")]] * 9)
    caught = failure(world)
    assert (caught.failure, caught.message) == (Failure.REJECTED, "Invalid thought signature.")
    assert world.asked == ["a", "a"]


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [(Fault.NOT_FOUND, 404, Failure.NOT_FOUND), (Fault.REJECTED, 400, Failure.REJECTED)],
)
def test_the_requests_own_fault_goes_to_the_client(fault, status, expected):
    world = World(a=[[error(fault, status, "bad field")]], b=[])
    caught = failure(world)
    assert (caught.failure, caught.status, caught.message) == (expected, status, "bad field")
    assert world.asked == ["a"]


def test_a_lease_that_a_second_attempt_has_kept_can_be_lost_too():
    hang = Hang()
    world = World(a=[[error(Fault.UNAUTHENTICATED, 401)], ["x", hang]], b=[])
    exchange, seen = world.exchange(), []

    def run():
        with pytest.raises(RelayError) as caught:
            seen.extend(world.texts(exchange))
        seen.append(caught.value.message)

    thread = threading.Thread(target=run)
    thread.start()
    assert hang.began.wait(5)
    world.pool._lost(exchange._attempt.lease.token)
    thread.join(5)
    assert seen == ["x", "The lease was lost."]
    assert world.in_flight == {"a": 0, "b": 0}


def test_what_one_kind_of_account_cant_carry_goes_to_another():
    world = World(retry=0, a=[[Unsuited("x: no GIF")]], b=[])
    assert world.run() == ANSWER
    assert world.asked == ["a", "b"]
    assert [view.state for view in world.pool.snapshot()] == ["ready", "ready"]
    nobody = World(retry=0, a=[[Unsuited("x: no GIF")]], b=[[Unsuited("x: no GIF")]])
    caught = failure(nobody)
    assert (caught.failure, caught.status, caught.message) == (Failure.REJECTED, 0, "x: no GIF")
    assert nobody.asked == ["a", "b"]


@pytest.mark.parametrize("start", [["#"], []])
@pytest.mark.parametrize("fault", [error(Fault.BROKEN), None])
def test_a_stream_that_fails_before_anything_was_shown_fails_over(start, fault):
    world = World(a=[[*start, *([fault] if fault else ["!"])]], b=[])
    assert world.run() == ANSWER
    assert world.asked == ["a", "b"]


def test_after_text_was_sent_there_is_no_second_try():
    world = World(a=[["x", error(Fault.BROKEN, 0, "cut")]], b=[])
    seen = []
    with pytest.raises(RelayError) as caught:
        seen.extend(world.texts(world.exchange()))
    assert seen == ["x"]
    assert (caught.value.failure, caught.value.message) == (Failure.BROKEN, "cut")
    assert world.asked == ["a"]
    assert world.in_flight == {"a": 0, "b": 0}


@pytest.mark.parametrize("bad", [["x"], ["x", "!"], ["x", error(Fault.BROKEN)]])
def test_a_buffered_request_fails_over_even_after_text(bad):
    world = World(a=[bad], b=[])
    assert world.run(buffered=True) == ANSWER


def test_events_that_arrived_together_leave_together_and_the_last_before_an_error():
    pieces = [f"{number} " for number in range(500)]
    world = World(a=[[*pieces, error(Fault.BROKEN, 0, "cut")]])
    seen = []
    with pytest.raises(RelayError):
        seen.extend(world.texts(world.exchange()))
    assert "".join(seen) == "".join(pieces)
    assert len(seen) <= len(pieces)


def test_a_slow_client_stops_the_reading_of_the_upstream():
    too_far = threading.Event()

    class Counted(list):
        def __iter__(self):
            for number, piece in enumerate(super().__iter__()):
                if number > 2 * CAPACITY:
                    too_far.set()
                yield piece

    pieces = [f"{number} " for number in range(10 * CAPACITY)]
    world = World(a=[Counted([*pieces, "."])])
    texts = world.texts(world.exchange())
    first = next(texts)
    assert not too_far.wait(0.3)
    assert first + "".join(texts) == "".join(pieces) + ".end"
    assert too_far.is_set()


def test_large_chunks_are_read_ahead_one_by_one():
    """In bytes the bound is the same however large the chunks are, down to one chunk."""
    piece = "x" * (READ_AHEAD + 1)
    too_far = threading.Event()

    class Counted(list):
        def __iter__(self):
            for number, text in enumerate(super().__iter__()):
                if number > 3:  # one has left, one waits, and one is in the hand of its reader
                    too_far.set()
                yield text

    world = World(a=[Counted([*[piece] * 20, "."])])
    texts = world.texts(world.exchange())
    first = next(texts)
    assert not too_far.wait(0.3)
    rest = list(texts)
    assert too_far.is_set()
    assert [first, *rest][:19] == [piece] * 19  # none together with another
    assert first + "".join(rest) == piece * 20 + ".end"


def test_silence_yields_keepalives_and_events_still_come():
    hang = Hang()
    world = World(interval=0.05, a=[[hang]])
    texts = world.texts(world.exchange())
    assert [next(texts) for _ in range(3)] == [":", ":", ":"]
    texts.close()
    assert hang.ended.wait(1)
    assert world.in_flight == {"a": 0}


def test_a_client_that_is_gone_ends_a_silent_attempt():
    hang = Hang()
    world = World(a=[[hang]])
    exchange = world.exchange()
    texts = world.texts(exchange)
    exchange.client_gone()
    with pytest.raises(ClientGone):
        next(texts)
    assert world.in_flight == {"a": 0}


def test_a_client_that_is_gone_ends_the_wait_for_an_account():
    hang = Hang()
    world = World(concurrency=1, interval=0.05, a=[[hang]])
    first = world.texts(world.exchange())
    assert next(first) == ":"
    exchange = world.exchange()
    waiting = world.texts(exchange)
    assert next(waiting) == ":"
    assert world.pool.waiting == 1
    exchange.client_gone()
    with pytest.raises(ClientGone):
        next(waiting)
    first.close()
    # The slot that came free went to nobody: the next request gets it at once.
    assert world.run() == ANSWER
    assert world.in_flight == {"a": 0}
    assert world.pool.waiting == 0


def test_all_busy_for_too_long_is_told():
    hang = Hang()
    world = World(concurrency=1, interval=0.05, pool_wait=0.1, a=[[hang]])
    first = world.texts(world.exchange())
    assert next(first) == ":"
    caught = failure(world)
    assert caught.failure is Failure.BUSY
    first.close()
    assert world.in_flight == {"a": 0}


def test_the_end_of_the_process_ends_every_exchange():
    world = World(interval=0.05, a=[[Hang()], [Hang()]])
    streams = [world.texts(world.exchange()) for _ in range(2)]
    for stream in streams:
        assert next(stream) == ":"
    world.relay.stop()
    for stream in streams:
        with pytest.raises(RelayError) as caught:
            for _ in stream:
                pass
        assert caught.value.failure is Failure.STOPPING
    assert world.in_flight == {"a": 0}
    assert world.relay.live == 0


def test_the_trace_tells_the_whole_way():
    world = World(a=[[error(Fault.QUOTA, 429)]], b=[])
    exchange = world.exchange()
    list(world.texts(exchange))
    assert [(a.account, a.status, a.outcome) for a in exchange.trace.attempts] == [
        ("a", 429, "per-minute quota"),
        ("b", 200, "ok"),
    ]
    assert exchange.trace.first_event_ms is not None


def test_an_attempt_that_loses_its_lease_ends_and_another_begins():
    hang = Hang()
    world = World(a=[["x", hang]], b=[])
    exchange = world.exchange(buffered=True)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(world.texts(exchange)))
    reader.start()
    assert hang.began.wait(5)
    exchange._attempt._lost()
    reader.join(5)
    assert hang.ended.wait(5)
    assert "".join(seen) == ANSWER
    assert len(world.asked) == 2
    assert [attempt.outcome for attempt in exchange.trace.attempts] == ["lease lost", "ok"]


def test_a_conversation_stays_on_its_account_where_rotation_is_sticky(monkeypatch):
    world = World(rotation="sticky", a=[], b=[], c=[])
    for key in "pqrstuvw":
        monkeypatch.setattr(ScriptedJob, "affinity_key", key)
        assert [world.run() for _ in range(3)] == ["hello.end"] * 3
    served = [set(world.asked[start : start + 3]) for start in range(0, 24, 3)]
    assert all(len(accounts) == 1 for accounts in served)
    assert set.union(*served) == {"a", "b", "c"}


def test_other_rotations_do_not_look_for_the_conversation(monkeypatch):
    def refuse(_):
        raise AssertionError("looked for what takes a while to find")

    monkeypatch.setattr(ScriptedJob, "affinity_key", property(refuse))
    assert World(a=[["x", "."]]).run() == "x.end"
