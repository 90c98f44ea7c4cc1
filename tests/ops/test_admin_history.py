"""The history of requests: what is written to the store, its bounds, how readers merge it."""

import itertools
import json
import threading
import time

import pytest

from app.api.record import Recorder, RequestRecord
from app.ops.admin import keys
from app.ops.admin.history import History
from app.ops.admin.reading import Reader
from app.ops.admin.series import BOUNDS, MOST_MODELS, OTHERS, TOTAL, Bucket, Counts
from app.pool.state import MemoryStore
from app.relay.trace import AttemptRecord, Trace

NOW = 1_800_000_030.0


def ended(number, *, account="key-1", outcome="ok", status=200, at=NOW, ms=100, **more):
    return {
        "request_id": f"req_{number:024x}",
        "at": at,
        "client": "",
        "path": "/v1/messages",
        "status": status,
        "outcome": outcome,
        "model": "claude-sonnet-4-5",
        "upstream_model": "gemini-3.8-flash",
        "served_model": "gemini-3.8-flash-001",
        "stream": True,
        "attempts": [
            {"account": account, "project": "", "status": status, "outcome": outcome, "ms": ms}
        ],
        "first_event_ms": 80,
        "ms": ms,
        "stop_reason": "end_turn",
        "input_tokens": 30,
        "cache_read_input_tokens": 10,
        "output_tokens": 5,
        **more,
    }


class CountingStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.calls = []

    def put_many(self, values, ttl):
        self.calls.append((dict(values), ttl))
        super().put_many(values, ttl)

    def get_many(self, wanted):
        self.calls.append((list(wanted), 0))
        return super().get_many(wanted)


def history(store):
    """A history whose thread does not run: the test says when it writes."""
    made = History(store, clock=lambda: NOW)
    made._start = lambda: None
    return made


def reader(store, mine=None):
    return Reader(store, mine or history(store), clock=lambda: NOW)


def told(store, *records):
    one = history(store)
    for fields in records:
        one.finished(object(), fields)
    one.flush()
    return one


def test_what_two_workers_wrote_is_read_as_one():
    store = MemoryStore()
    told(store, ended(1, at=NOW - 3), ended(3, at=NOW - 1))
    told(store, ended(2, at=NOW - 2, account="key-2"))
    look = reader(store)
    assert [one["request_id"][-1] for one in look.recent(10)] == ["3", "2", "1"]
    assert [one["request_id"][-1] for one in look.recent(2)] == ["3", "2"]
    assert look.find(f"req_{2:024x}") == ended(2, at=NOW - 2, account="key-2")
    assert look.find("req_nothing") is None
    last = look.series("1h")[-1][1]
    assert last.of(TOTAL).requests == 3
    assert {name: counts.ok for name, counts in last.by_account().items()} == {
        TOTAL: 3,
        "key-1": 2,
        "key-2": 1,
    }


def test_many_requests_fill_pages_that_are_used_again():
    store = MemoryStore()
    most = keys.PAGE * keys.PAGES_KEPT
    told(store, *(ended(number, at=NOW + number) for number in range(most + keys.PAGE + 5)))
    assert len(store.scan(keys.PAGES)) == keys.PAGES_KEPT
    look = reader(store)
    latest = [int(one["request_id"][4:], 16) for one in look.recent(120)]
    assert latest == list(range(most + keys.PAGE + 4, most + keys.PAGE + 4 - 120, -1))
    kept = look.search(most=10_000)
    assert most - keys.PAGE < len(kept) <= most
    assert look.find(f"req_{3:024x}") is None


def test_it_is_kept_for_a_bounded_time():
    store = CountingStore()
    told(store, ended(1))
    ttls = {key.partition("/")[0]: ttl for values, ttl in store.calls for key in values}
    assert ttls == {
        "history-page": 86_400.0,
        "history-head": 86_400.0,
        "history-minute": 7500.0,
        "history-ten": 90_000.0,
    }


def test_the_request_itself_never_touches_the_store():
    store = CountingStore()
    one = history(store)
    record = RequestRecord("req_1", "/v1/messages", "claude", "gemini", True, Trace())
    one.started(record)
    one.finished(record, ended(1))
    assert store.calls == []


def test_the_thread_writes_by_itself_and_stays_alive_when_the_store_fails():
    class Store(MemoryStore):
        failures = 1
        written = threading.Event()

        def put_many(self, values, ttl):
            if Store.failures:
                Store.failures -= 1
                raise RuntimeError("no")
            super().put_many(values, ttl)
            Store.written.set()

    store = Store()
    one = History(store)
    recorder = Recorder([one])
    for number in range(2):
        record = RequestRecord(f"req_{number}", "/v1/messages", "claude", "gemini", True, Trace())
        record.outcome = "ok"
        recorder.end(recorder.begin(record))
        if number == 0:
            while Store.failures:
                threading.Event().wait(0.01)
    assert Store.written.wait(20)


def test_searching():
    store = MemoryStore()
    told(
        store,
        ended(1, at=NOW),
        ended(2, at=NOW + 1, outcome="unavailable", status=529, account="key-2"),
        ended(3, at=NOW + 2, model="claude-opus-4-1"),
    )

    def found(**query):
        return [int(one["request_id"][4:], 16) for one in reader(store).search(**query)]

    assert found() == [3, 2, 1]
    assert found(text="OPUS") == [3]
    assert found(text="0002") == [2]
    assert found(account="key-2") == [2]
    assert found(failed=True) == [2]
    assert found(text="unavail", account="key-1") == []
    assert found(most=1) == [3]


def live_record(name, *outcomes):
    trace = Trace()
    for number, outcome in enumerate(outcomes):
        attempt = AttemptRecord(f"key-{number + 1}", "")
        if outcome:
            attempt.end(outcome, 429)
        trace.attempts.append(attempt)
    at = NOW + len(outcomes)
    return RequestRecord(name, "/v1/messages", "claude", "gemini", True, trace, at=at)


def test_requests_under_way_elsewhere_are_published_only_while_somebody_looks():
    store = MemoryStore()
    here, there = history(store), history(store)
    here.started(live_record("req_here", ""))
    record = live_record("req_there", "per-minute requests", "")
    there.started(record)
    there.flush()
    assert store.scan(keys.LIVE) == {}
    look = reader(store, here)
    assert [one["request_id"] for one in look.live()] == ["req_here"]
    there.flush()
    here.flush()
    look = reader(store, here)
    assert [one["request_id"] for one in look.live()] == ["req_here", "req_there"]
    attempts = look.find("req_there")["attempts"]
    assert [(one["account"], one["outcome"], one["status"]) for one in attempts] == [
        ("key-1", "per-minute requests", 429),
        ("key-2", "", 0),
    ]
    there.finished(record, ended(7, request_id="req_there"))
    there.flush()
    look = reader(store, here)
    assert [one["request_id"] for one in look.live()] == ["req_here"]
    assert look.find("req_there")["outcome"] == "ok"


def test_requests_under_way_are_not_looked_at_while_nobody_looks():
    class Record(RequestRecord):
        def fields(self):
            raise AssertionError

    store = MemoryStore()
    one = history(store)
    one.started(Record("req_1", "/v1/messages", "claude", "gemini", True, Trace()))
    one.flush()
    one.finished(object(), ended(2))
    one.flush()
    assert reader(store).recent(10) == [ended(2)]


def test_others_have_their_turn_between_two_pages(monkeypatch):
    me, sleep = threading.get_ident(), time.sleep
    turns = []

    def turn(seconds):
        return turns.append(seconds) if threading.get_ident() == me else sleep(seconds)

    monkeypatch.setattr(time, "sleep", turn)
    told(MemoryStore(), *(ended(number) for number in range(3 * keys.PAGE + 1)))
    assert turns == [0, 0, 0]


def test_half_a_character_in_a_name_is_kept_like_any_other():
    store = MemoryStore()
    record = ended(1, served_model="caf\u00e9 \ud83d")
    told(store, record)
    page = next(iter(store.scan(keys.PAGES).values()))
    assert page.encode()  # a database takes nothing else
    assert reader(store).recent(1) == [record]


def test_models_that_clients_invent_do_not_fill_a_span_in_many_writes():
    store = MemoryStore()
    one = history(store)
    for number in range(MOST_MODELS + 20):
        one.finished(object(), ended(number, upstream_model=f"gemini-{number}"))
        one.flush()
    total = reader(store).total("1h")
    assert len(total.by_model()) == MOST_MODELS + 1
    assert total.by_model()[OTHERS].requests == 20
    assert total.of(TOTAL).requests == MOST_MODELS + 20


def test_old_and_broken_entries_are_passed_over():
    store = MemoryStore()
    told(store, ended(1))
    store.put_many(
        {
            f"{keys.PAGES}other/0": "not json",
            f"{keys.PAGES}other/1": '{"not": "a list"}',
            f"{keys.HEADS}other": "x",
            f"{keys.LIVE}other": '["of another version"]',
            f"{keys.MINUTES.prefix}{keys.MINUTES.start(NOW)}/other": '[["key-1", "m", 1]]',
            f"{keys.MINUTES.prefix}soon/other": "[]",
        },
        60,
    )
    look = reader(store)
    assert len(look.recent(10)) == len(look.search()) == 1
    assert look.live() == []
    assert look.total("1h").of(TOTAL).requests == 1


@pytest.mark.parametrize(("name", "width", "number"), [("1h", 60, 60), ("24h", 600, 144)])
def test_series_have_no_gaps(name, width, number):
    series = reader(MemoryStore()).series(name)
    starts = [start for start, _ in series]
    assert len(starts) == number
    assert starts[-1] <= NOW < starts[-1] + width
    assert {later - earlier for earlier, later in itertools.pairwise(starts)} == {width}


def test_each_attempt_counts_for_its_account_and_the_answer_for_the_last():
    attempts = [
        {"account": "a", "project": "", "status": 429, "outcome": "per-minute", "ms": 40},
        {"account": "b", "project": "", "status": 503, "outcome": "UNAVAILABLE", "ms": 60},
        {"account": "c", "project": "", "status": 400, "outcome": "API_KEY_INVALID", "ms": 10},
        {"account": "d", "project": "", "status": 200, "outcome": "ok", "ms": 900},
    ]
    bucket = Bucket()
    bucket.count(ended(1, attempts=attempts, first_event_ms=310))
    a, b, c, d = (bucket.of(name) for name in "abcd")
    assert (a.refused, b.failed, c.failed, d.ok) == (1, 1, 1, 1)
    assert (a.success, d.success) == (0.0, 1.0)
    assert (a.input_tokens, d.input_tokens, d.cached_tokens, d.output_tokens) == (0, 30, 10, 5)
    assert d.cached_share == 0.25
    # 310 ms less the 110 that the others took.
    assert d.bins == {BOUNDS.index(200): 1}
    assert bucket.of(TOTAL).bins == {BOUNDS.index(400): 1}
    assert bucket.of(TOTAL).requests == 1


@pytest.mark.parametrize(
    ("outcome", "status", "name"),
    [
        ("ok", 200, "ok"),
        ("per-day requests", 429, "refused"),
        ("UNAVAILABLE", 503, "failed"),
        ("broken", 0, "failed"),
        ("forbidden", 403, "failed"),
        ("INVALID_ARGUMENT", 400, "other"),
        ("hung up", 0, "other"),
        ("client gone", 499, "other"),
    ],
)
def test_what_counts_as_what(outcome, status, name):
    counts = Counts()
    counts.count(outcome, status)
    assert counts == Counts(requests=1, **{name: 1})


def test_percentiles_of_the_merged_bins():
    one, two = Counts(), Counts()
    for ms in (90, 95, 99, 100):
        one.first_event(ms)
    for ms in (950, 999, 1_000_000_000):
        two.first_event(ms)
    one.add(two)
    assert one.percentile(0.5) == round(75 + 25 * 3.5 / 4)
    assert 800 < one.percentile(0.8) <= 1000
    assert one.percentile(1.0) == BOUNDS[-1]
    assert Counts().percentile(0.5) is None


def test_a_bucket_survives_the_store_and_invented_models_do_not_fill_it():
    bucket = Bucket()
    for number in range(MOST_MODELS + 20):
        bucket.count(ended(number, upstream_model=f"gemini-{number}"))
    assert len(bucket.by_model()) == MOST_MODELS + 1
    assert bucket.by_model()[OTHERS].requests == 20
    again = Bucket.load(bucket.dump())
    assert again.rows == bucket.rows
    assert json.loads(bucket.dump()) == json.loads(again.dump())
