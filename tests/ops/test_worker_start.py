"""The worker's start: what is looked up once is what would have been looked up each time."""

import gc
import itertools
from importlib import metadata

import pytest

from app.ops.worker import COLLECT, _one_look_for_plugins

GROUPS = ("gevent.plugins.monkey.will_patch_all", "console_scripts", "nobody.has.this")


def test_plugins_are_the_same_at_one_look(monkeypatch):
    plain = metadata.entry_points
    each = [list(plain(group=group)) for group in GROUPS]
    looks = []
    monkeypatch.setattr(metadata, "entry_points", lambda: looks.append(1) or plain())
    with _one_look_for_plugins():
        assert [list(metadata.entry_points(group=group)) for group in GROUPS] == each
    assert looks == [1]
    assert each[0]  # gevent has one of its own


def test_the_lookup_is_put_back_whatever_happens():
    plain = metadata.entry_points

    def fail():
        with _one_look_for_plugins():
            assert metadata.entry_points is not plain
            raise OSError

    with pytest.raises(OSError):
        fail()
    assert metadata.entry_points is plain


def test_no_look_for_cycles_is_through_many_objects():
    kept = []
    looks = [0]

    def note(phase, info):
        if phase == "start" and info["generation"] == 1:  # those made since the last such look
            looks.append(len(kept))

    usual = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    gc.callbacks.append(note)
    try:
        for _ in range(300_000):  # what a thousand open streams hold
            kept.append([])  # noqa: PERF401 - the callback sees how far it is
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*usual)
    assert len(looks) > 30
    assert max(after - before for before, after in itertools.pairwise(looks)) < 10_000
