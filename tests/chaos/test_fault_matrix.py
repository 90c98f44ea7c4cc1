"""The short form of the fault matrix; ``make chaos`` runs it in full."""

from __future__ import annotations

import shutil

import anthropic
import pytest

from tests.chaos import __main__ as make_chaos
from tests.chaos.cells import KINDS, STORES, cells, expected
from tests.chaos.client import ask_sdk
from tests.chaos.gateways import in_process
from tests.chaos.matrix import Matrix, disagreement
from tests.chaos.recorded import TEXT
from tests.redis_server import RedisServer
from tests.services import missing

SHORT = list(cells(full=False))
SDK_SAMPLE = [
    cell
    for cell in SHORT
    if cell.store == "memory"
    and cell.mode in ("stream", "message")
    and not KINDS[cell.kind].gateway
    and (cell.place == "in text" or cell.kind in ("refuse", "status 400", "status 429"))
]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        yield ""
        return
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory, redis_url):
    """What is wrong in each cell, all played at once."""
    stores = STORES if redis_url else STORES[:2]
    played = [cell for cell in SHORT if cell.store in stores]
    with Matrix(played, tmp_path_factory.mktemp("matrix"), in_process, redis_url) as matrix:
        return {cell: disagreement(cell, seen) for cell, seen in matrix.run().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_sees_what_is_stated(verdicts, kind):
    mine = {cell: wrong for cell, wrong in verdicts.items() if cell.kind == kind}
    assert mine
    assert [wrong for wrong in mine.values() if wrong] == []


@pytest.mark.parametrize("store", STORES)
def test_no_store_is_left_out(verdicts, store):
    if not any(cell.store == store for cell in verdicts):
        missing("redis-server")
    assert sum(cell.store == store for cell in verdicts) >= 20


def test_the_official_sdk_agrees(tmp_path):
    """Whole text where the cell says so; otherwise a prefix of it, and the right exception."""
    with Matrix(SDK_SAMPLE, tmp_path, in_process) as matrix:
        clients = {
            url: anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
            for url in set(matrix.urls.values())
        }
        for cell in SDK_SAMPLE:
            text, status, error = ask_sdk(clients[matrix.urls[cell]], matrix.names[cell], cell.mode)
            wanted = expected(cell)
            if wanted.error:
                assert error == wanted.error, cell
                assert status == wanted.status, cell
                shown = "".join(
                    event["delta"].get("text", "")
                    for event in wanted.events
                    if event["type"] == "content_block_delta"
                )
                assert text == shown, cell
            else:
                assert (text, status) == (TEXT, None), cell


def test_the_table_itself_is_sane():
    """What the cells state is what was promised, whatever the gateway does."""
    for cell in cells(full=True, stores=("memory",)):
        wanted = expected(cell)
        ends = [event["type"] for event in wanted.events[-1:]]
        if wanted.error:
            assert ends != ["message_stop"]
            assert wanted.message is None
            assert (
                wanted.status == 200
                if wanted.events
                else wanted.status >= 400 or (wanted.keepalives)
            )
        else:
            assert ends == ["message_stop"] or wanted.message is not None
        if cell.left and cell.mode in ("message", "count"):
            effect = KINDS[cell.kind].effect
            assert not wanted.error or effect.final


def test_make_chaos_prints_what_it_played(monkeypatch, capsys):
    played = [cell for cell in SHORT if cell.kind == "no content" and cell.mode == "stream"]
    monkeypatch.setattr(make_chaos, "cells", lambda **_: iter(played[:2]))
    monkeypatch.setattr(make_chaos, "in_gunicorn", in_process)
    monkeypatch.setattr(make_chaos.shutil, "which", lambda name: None)
    assert make_chaos.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("no content")]
    where = ["no", "content", "before", "headers"]
    assert rows == [
        [*where, "left", "200", "whole", "-", "-", "-"],
        [*where, "none", "502", "api_error", "-", "-", "-"],
    ]
    assert lines[-1].startswith("2 cells in ")
    assert lines[-1].endswith(": none disagree")

    # What is seen does not fit what is stated: the table and the exit status say so.
    monkeypatch.setattr(make_chaos, "disagreement", lambda cell, seen: f"{cell}: wrong")
    assert make_chaos.main() == 1
    out = capsys.readouterr().out
    assert "no content | before headers | stream | none left | memory: wrong" in out
    assert "502 api_error ✗" in out
    assert out.splitlines()[-1].endswith(": 2 disagree")
