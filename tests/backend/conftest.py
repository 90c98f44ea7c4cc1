import pytest

from app.backend.upstream import Upstream, UpstreamSettings


@pytest.fixture
def upstream(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    upstream = Upstream(UpstreamSettings(connect_timeout=2.0, read_timeout=5.0))
    yield upstream
    upstream.close()
