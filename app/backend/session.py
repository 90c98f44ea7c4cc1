"""The ``requests`` session that all upstream traffic goes through."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import DEFAULT_POOLBLOCK, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from urllib3 import Timeout
from urllib3.connection import HTTPConnection
from urllib3.util.ssl_ import create_urllib3_context

from app import __version__
from app.backend.connection import DIRECT_POOLS, SOCKS_POOLS

POOL_SIZE = 512
"""Idle connections kept per host; more can be open, those are closed after use."""
RECEIVE_BUFFER = 128 << 10
"""Bytes of an answer that the system reads ahead (twice that much, as Linux counts).

By itself it goes up to megabytes, which it would hold while a client is slow. On a connection with
100 ms this is more than a megabyte a second; no model writes that fast.
"""
HOSTS = 64
"""Hosts whose connections are kept: Vertex has one per region."""

_SOCKET_OPTIONS = (
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER),
)


@lru_cache(maxsize=4)
def _tls_context(bundle: str) -> ssl.SSLContext:
    # Reading the certificates takes some 10 ms, which requests does for every connection.
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    if Path(bundle).is_dir():
        context.load_verify_locations(capath=bundle)
    else:
        context.load_verify_locations(cafile=bundle)
    return context


class _Fields(CaseInsensitiveDict[str]):
    """The fields of a request's head, read without a call of Python's for each."""

    def items(self) -> Any:
        """Return the names, as they were given, with their values."""
        return self._store.values()  # type: ignore[attr-defined]

    def copy(self) -> _Fields:
        """Return fields of its own with the same content."""
        fields = _Fields()
        fields._store = self._store.copy()  # type: ignore[attr-defined]
        return fields


@lru_cache(maxsize=512)
def _template(
    method: str, url: str, headers: tuple[tuple[str, str | bytes], ...]
) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.prepare(method, url)
    of_the_url: Mapping[str, str | bytes] = request.headers or {}  # a password, if it holds one
    request.prepare_headers({**of_the_url, **dict(headers)})
    request.headers = _Fields(request.headers)
    return request


@lru_cache(maxsize=64)
def _timeouts(connect: float, read: float) -> Timeout:
    return Timeout(connect=connect, read=read)


def prepared(
    method: str, url: str, headers: Mapping[str, str | bytes], body: bytes | None
) -> requests.PreparedRequest:
    """Return a request to send; raises `requests.RequestException` for what can't be sent.

    All but the body is prepared once, as an account's URLs and fields are few.
    """
    template = _template(method, url, tuple(headers.items()))
    request = requests.PreparedRequest()
    request.method, request.url = template.method, template.url
    request.headers = template.headers.copy()
    if body is not None:
        request.headers["Content-Length"] = str(len(body))
        request.body = body
    return request


class _Adapter(HTTPAdapter):
    """Uses tracked connections and one TLS context."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._direct: dict[str, Any] = {}
        super().__init__(pool_connections=HOSTS, pool_maxsize=POOL_SIZE)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = DEFAULT_POOLBLOCK, **pool_kwargs: Any
    ) -> None:
        super().init_poolmanager(
            connections,
            maxsize,
            block,
            ssl_context=self._tls,
            socket_options=_SOCKET_OPTIONS,
            **pool_kwargs,
        )
        self.poolmanager.pool_classes_by_scheme = DIRECT_POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        socks = proxy.lower().startswith("socks")
        if not socks:
            proxy_kwargs["proxy_ssl_context"] = self._tls
        manager = super().proxy_manager_for(
            proxy, ssl_context=self._tls, socket_options=_SOCKET_OPTIONS, **proxy_kwargs
        )
        manager.pool_classes_by_scheme = SOCKS_POOLS if socks else DIRECT_POOLS
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the connections to the request's host; found anew for each only with a proxy."""
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        origin = request.url[: request.url.find("/", len("https://"))]
        pool = self._direct.get(origin)
        if pool is None or pool.pool is None:  # closed in favour of other hosts
            if len(self._direct) >= HOSTS:
                self._direct.clear()
            pool = super().get_connection_with_tls_context(request, verify, None, cert)
            self._direct[origin] = pool
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return what the request line names."""
        url: str = super().request_url(request, proxies) if proxies else request.path_url
        return url

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Return the answer, without the cookies and the encoding that nobody asks for.

        Its fields are urllib3's own, which don't tell upper from lower case, either.
        """
        response = requests.Response()
        response.status_code = resp.status
        response.reason = resp.reason
        response.headers = resp.headers
        response.raw = resp
        response.url = req.url
        response.request = req
        return response

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        # The context has the certificates; naming a file here would load it per connection.
        conn.cert_reqs = "CERT_REQUIRED"


class UpstreamSession(requests.Session):
    """Thread-safe in the way it is used: nothing of it changes after the start.

    Follows no redirect (a credential never goes elsewhere), keeps no cookie, reads no ``.netrc``
    (which would replace the Authorization header). ``proxy`` is a proxy's URL; empty means what
    ``HTTPS_PROXY`` and its like say, asked once per host. ``REQUESTS_CA_BUNDLE`` is honoured.
    """

    def __init__(self, proxy: str = "") -> None:
        super().__init__()
        self.trust_env = False
        self._proxy = {"all": proxy} if proxy else None
        self._proxies_of: dict[str, dict[str, str]] = {}
        self.headers["User-Agent"] = f"claude-gemini-gateway/{__version__}"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._adapter = _Adapter(_tls_context(bundle or DEFAULT_CA_BUNDLE_PATH))
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send ``request`` through the right proxy, to its own URL and no other."""
        kwargs["proxies"] = self._proxy or self._environment_proxies(request.url or "")
        kwargs["allow_redirects"] = False
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: Any) -> None:
        """Return None: without this, requests reads a redirect's whole body."""
        return

    def open(
        self, request: requests.PreparedRequest, timeout: tuple[float, float]
    ) -> requests.Response:
        """Send what `prepared` has made and return the answer, its body unread.

        As `send`, which does more for redirects, hooks and cookies than for the rest.
        """
        url = request.url or ""
        proxies = self._proxy or self._environment_proxies(url)
        waits: Any = _timeouts(*timeout)
        return self._adapter.send(request, stream=True, timeout=waits, proxies=proxies)

    def _environment_proxies(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        if host not in self._proxies_of:
            self._proxies_of[host] = get_environ_proxies(host)
        return self._proxies_of[host]
