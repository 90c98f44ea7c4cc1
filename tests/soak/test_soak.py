"""The short form of ``make soak``: nothing of a request stays behind, however it ends."""

from tests.soak.run import BOUNDS, COLUMNS, soak


def test_nothing_of_a_request_stays_behind(tmp_path):
    measured = []
    outcome = soak(tmp_path, warm=100, count=300, parts=2, report=lambda *a: measured.append(a))
    assert outcome.grown == []
    assert [done for done, *_ in measured] == [100, 150, 300]
    assert set(BOUNDS) == set(COLUMNS)
    assert outcome.last["leases"] == outcome.last["attempts"] == 0
    # The run was one: some were served, some were not, some left.
    assert outcome.seen["streams whole"] > 50
    assert outcome.seen["messages"] > 20
    assert outcome.seen["hung up"] > 10
    assert sum(outcome.seen.values()) == 300
