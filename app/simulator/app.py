"""The WSGI application: who asks for what, which fault is due, and what is remembered of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from app.simulator import faults
from app.simulator.control import control
from app.simulator.delivery import BlindLink, Hangup, Link, Outgoing, before_headers, deliver, dress
from app.simulator.errors import GoogleError, bad_request
from app.simulator.faults import Fault, UnknownFault
from app.simulator.models import split_fault
from app.simulator.oauth import TokenRefused
from app.simulator.routes import Route, caller, find_route
from app.simulator.service import call_model, code_assist, json_answer, list_models
from app.simulator.state import MODEL_CALLS, Record, SimulatorState

MAX_BODY = 100 * 1024 * 1024
FAULT_HEADER = "x-simulator-fault"
_FAULT_KEY = "sim-fault-"
_CREDENTIALS = frozenset({"authorization", "x-goog-api-key", "cookie", "proxy-authorization"})
_NOT_FOUND = (
    b"<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title>"
    b"<p><b>404.</b> The requested URL was not found on this server.</html>"
)


def create_simulator_app(state: SimulatorState) -> WSGIApplication:
    """Return a fake Gemini that is observed and controlled through ``state``.

    Any WSGI server can run it. Breaking connections, and seeing that a client has hung up, need
    `app.simulator.server`.
    """

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _Exchange(state, environ).respond(start_response)

    return application


class _Exchange:
    """One request and its answer."""

    def __init__(self, state: SimulatorState, environ: WSGIEnvironment) -> None:
        self._state = state
        self._link: Link = environ.get("simulator.link") or BlindLink()
        self._query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        self._headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        self._headers["content-type"] = environ.get("CONTENT_TYPE", "")
        self._raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self._record = Record(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", ""),
            query={name: value for name, value in self._query.items() if name != "key"},
            headers={n: v for n, v in self._headers.items() if n not in _CREDENTIALS},
            body=None,
            project=self._headers.get("x-goog-user-project", ""),
            size=len(self._raw),
        )
        self._counted = False
        self._fault: Fault | None = None

    def respond(self, start_response: StartResponse) -> Iterable[bytes]:
        """Answer; raises `Hangup` where the connection is to be closed instead."""
        record, state = self._record, self._state
        route = find_route(record.method, record.path)
        try:
            refusal = self._let_in(route)
            state.received(record)
            if refusal is not None:
                raise refusal
            if route is None:
                return self._send(_other(state, record, self._raw), start_response)
            if route.call in MODEL_CALLS:
                self._counted = True
                state.begin(record)
            outgoing = self._answer(route)
        except GoogleError as error:
            body: object = error.body()
            if record.call == "streamGenerateContent" and record.query.get("alt") != "sse":
                body = [body]
            outgoing = json_answer(body, error.code)
        except Hangup as hangup:
            self._ended(aborted=hangup.by_client)
            raise
        return self._send(outgoing, start_response)

    def _let_in(self, route: Route | None) -> GoogleError | None:
        """Fill in the record; returns what keeps the request out, if anything does."""
        record = self._record
        if route is None:
            return None
        record.call, record.model = route.call, route.model
        record.project = record.project or route.project
        try:
            record.key = caller(route, self._headers, self._query, self._state.tokens)
            if record.method == "POST":
                record.body = _parsed(self._raw)
        except GoogleError as error:
            return error
        if route.flavour == "code_assist" and isinstance(record.body, Mapping):
            record.model = str(record.body.get("model", ""))
        return None

    def _answer(self, route: Route) -> Outgoing:
        state, record = self._state, self._record
        fault = self._fault = self._due(route)
        before_headers(fault, self._link)
        error = faults.http_error(fault, split_fault(record.model)[0]) if fault else None
        if error is not None:
            raise error
        if route.call == "models":
            return list_models(route, record.query)
        if route.call in MODEL_CALLS:
            return call_model(state, route, record, fault)
        return code_assist(state, route, record)

    def _due(self, route: Route) -> Fault | None:
        """Return the fault for this request: of its key, its header, its script or its model."""
        state, record = self._state, self._record
        name, times = "", 0
        if record.key.startswith(_FAULT_KEY):
            name = record.key.removeprefix(_FAULT_KEY)
        elif FAULT_HEADER in self._headers:
            name, _, option = self._headers[FAULT_HEADER].partition(";")
            times = int(option.partition("=")[2] or 0) if "times=" in option else 0
        try:
            fault = faults.parse(name.strip()) if name else None
            if fault and times and not state.still_due(record.key, name, times):
                fault = None
            if not name:
                fault = state.scripted(record.key, route.call)
                magic = split_fault(record.model)[1]
                if fault is None and magic:
                    fault = faults.parse(magic)
        except UnknownFault as error:
            raise bad_request(str(error)) from None
        record.fault = fault.kind if fault else ""
        return fault

    def _send(self, outgoing: Outgoing, start_response: StartResponse) -> Iterable[bytes]:
        outgoing = dress(outgoing, self._fault)
        self._record.status = outgoing.status
        headers = list(outgoing.headers)
        if not outgoing.streams:
            headers.append(("Content-Length", str(sum(map(len, outgoing.pieces)))))
        start_response(f"{outgoing.status} {_phrase(outgoing.status)}", headers)
        return _Body(deliver(outgoing, self._fault, self._link, self._ended), self._ended)

    def _ended(self, aborted: bool) -> None:
        if self._counted:
            self._state.end(self._record, aborted=aborted)


class _Body:
    """A body that notes its end, however it comes."""

    def __init__(self, pieces: Iterator[bytes], ended: Callable[[bool], None]) -> None:
        self._pieces = pieces
        self._ended = ended

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Called by the server when it is done; early, if the client is gone."""
        self._ended(True)


def _parsed(raw: bytes) -> Any:
    if len(raw) > MAX_BODY:
        raise bad_request(f"Request payload size exceeds the limit: {MAX_BODY} bytes.")
    try:
        return json.loads(raw or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        shown = raw[:40].decode(errors="replace")
        message = f"Invalid JSON payload received. Unexpected token.\n{shown}\n^"
        raise bad_request(message, "") from None


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _other(state: SimulatorState, record: Record, raw: bytes) -> Outgoing:
    """Answer what is not Google's API: the token endpoint, and the simulator's own controls."""
    if record.method == "POST" and record.path.endswith("/token"):
        try:
            return json_answer(state.tokens.grant(raw.decode(errors="replace")))
        except TokenRefused as error:
            refusal = {"error": error.error, "error_description": error.description}
            return json_answer(refusal, 400)
    if record.path.startswith("/_simulator/"):
        return control(state, record, raw)
    return Outgoing(404, [("Content-Type", "text/html; charset=UTF-8")], [_NOT_FOUND])


def _phrase(status: int) -> str:
    return "Client Closed Request" if status == 499 else HTTPStatus(status).phrase
