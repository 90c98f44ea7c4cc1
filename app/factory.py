"""The composition root: every room gets here what it needs, and nothing reads globals later."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g

from app.api import errors
from app.api.auth import ClientKeys
from app.api.deadline import BodyDeadline
from app.api.debug_header import HEADER, attempts_header
from app.api.hangup import HangupWatch
from app.api.health import health_blueprint
from app.api.messages import messages_blueprint
from app.api.models import models_blueprint
from app.api.openapi import openapi_blueprint
from app.api.record import Listener, Recorder
from app.api.refusals import tell_refusals
from app.api.reply import Replier
from app.api.web_pages import guard_pages
from app.backend.token_shelf import TokenShelf
from app.backend.upstream import Upstream, UpstreamSettings
from app.config import Settings, SettingsError, load_settings
from app.ops import logs
from app.ops.access import AdminAccess
from app.ops.accounts_changes import add_changes
from app.ops.accounts_cli import accounts_commands
from app.ops.admin import Dashboard
from app.ops.metrics import Metrics, PoolCollector, metrics_blueprint
from app.ops.request_log import RequestLog
from app.ops.throttle import Throttle
from app.ops.tracing import open_tracing
from app.pool.account import Account
from app.pool.pool import ClientPool
from app.pool.registry import ModelInfo, ModelRegistry
from app.pool.sources import load_accounts, none_left, watched_file
from app.pool.state import StateError, StateStore, open_store
from app.pool.watch import AccountsWatcher
from app.relay.relay import Relay, RelaySettings
from app.relay.trace import REQUEST_ID
from app.translate.gemini_models import KNOWN_MODELS
from app.translate.models import catalogue, find, resolve

if TYPE_CHECKING:
    from app.api.limits import ClientLimits
    from app.simulator.server import Simulator

log = logging.getLogger("gateway")

SIMULATOR = "simulator"
"""Name of the one account there is when none is configured."""


class Gateway:
    """The running parts of one process: started once, drained once.

    ``app.extensions["gateway"]`` is this object.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        try:
            self.store = open_store(settings.state_url, settings.root, lease_ttl=settings.lease_ttl)
        except StateError as error:
            raise SettingsError(f"STATE_URL: {error}") from None
        self._simulator: Simulator | None = None
        self._start_lock = threading.Lock()
        self._running = threading.Event()
        self._draining = False
        self.pool = ClientPool([], rotation=settings.rotation, store=self.store)
        self.upstream = Upstream(
            UpstreamSettings(
                gemini_base_url=settings.gemini_base_url,
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
            ),
            TokenShelf(self.store, self.pool.leasing),
        )
        self.relay = Relay(
            self.pool,
            self.upstream,
            self.store,
            RelaySettings(
                request_retry=settings.request_retry,
                quota_switch_project=settings.quota_switch_project,
                pool_wait_timeout=settings.pool_wait_timeout,
                keepalive_interval=settings.keepalive_interval,
                stream_resume=settings.stream_resume,
                retry_budget=settings.retry_budget,
            ),
        )
        self.registry = ModelRegistry(self.pool, self._list_models, _known_models())
        self._watcher: AccountsWatcher | None = None

    @property
    def simulated(self) -> bool:
        """Tell whether answers come from the built-in simulator."""
        return any(account.name == SIMULATOR for account in self.pool.accounts())

    def start(self) -> None:
        """Load the accounts and start what runs in the background; further calls do nothing."""
        if self._running.is_set():
            return
        with self._start_lock:
            if self._running.is_set():
                return
            self.pool.replace_accounts(self.accounts())
            self.pool.listen()
            self._watcher = AccountsWatcher(
                watched_file(self.settings),
                load=self._reload,
                apply=self._apply,
                each_time=self.pool.sync,
            )
            self._watcher.start()
            self.registry.start()
            self._running.set()
        log.info("serving from %s", "the built-in simulator" if self.simulated else "Gemini")

    def close(self) -> None:
        """End the threads of `start`, where the process goes on without this gateway."""
        if self._watcher:
            self._watcher.stop()
        self.registry.stop()

    def look_in(self) -> None:
        """Fill the pool for a look from the command line; nothing is started."""
        self.pool.replace_accounts(load_accounts(self.settings))

    def drain(self) -> None:
        """Stop being ready; when ``DRAIN_TIMEOUT`` is over, end the streams still open."""
        self._draining = True
        timer = threading.Timer(self.settings.drain_timeout, self.relay.stop)
        timer.daemon = True
        timer.start()

    def accounts(self) -> list[Account]:
        """Return the configured accounts, or the simulator's when there is none."""
        return load_accounts(self.settings) or [self._simulator_account()]

    def _reload(self) -> list[Account]:
        accounts = self.accounts()
        if not self.simulated and accounts[0].name == SIMULATOR:
            raise none_left(self.settings)
        return accounts

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether requests can be served, and the facts for ``/readyz``."""
        state = self.store.ping()
        usable = self.pool.any_usable()
        able = usable and not self._draining
        facts = {
            "serving": "simulator" if self.simulated else "gemini",
            "accounts": len(self.pool.accounts()),
            "usable_account": usable,
            "state_store": state,
            "shared_leases": not self.pool.alone,
            "degraded": able and not state,
            "draining": self._draining,
        }
        return state and able, facts

    def _apply(self, accounts: list[Account]) -> None:
        self.pool.replace_accounts(accounts)
        self.upstream.forget(accounts)
        self.registry.refresh_soon()

    def _simulator_account(self) -> Account:
        if self._simulator is None:
            from app.simulator.server import Simulator  # noqa: PLC0415 - no part of production

            self._simulator = Simulator()
        return Account(SIMULATOR, "api_key", api_key=SIMULATOR, base_url=self._simulator.start())

    def _list_models(self, account: Account) -> list[ModelInfo]:
        return [
            ModelInfo(
                model.id, model.display_name, model.input_token_limit, model.output_token_limit
            )
            for model in self.upstream.list_models(account)
        ]


def _known_models() -> list[ModelInfo]:
    """Return what stands in for an account's listing until it has been fetched."""
    return [
        ModelInfo(
            model.id, model.display_name, model.input_limit, model.output_limit, model.thinking
        )
        for model in KNOWN_MODELS
    ]


def _client_limits(settings: Settings, store: StateStore) -> ClientLimits | None:
    """Return what counts the clients' use, None when nobody is limited."""
    amounts = (
        settings.client_requests_per_minute,
        settings.client_input_tokens_per_minute,
        settings.client_output_tokens_per_minute,
    )
    if not any(amounts):
        return None
    from app.api.limits import ClientLimits  # noqa: PLC0415 - only who limits pays for it

    requests, input_tokens, output_tokens = amounts
    return ClientLimits(
        store.counters(),
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


class _App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``: nothing here is a coroutine, which Flask would ask of each each time."""
        return func


def build(settings: Settings | None = None) -> Flask:
    """Return the Flask application; see `app.create_app`."""
    settings = settings or load_settings(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    load_accounts(settings)  # a wrong account refuses the start, in every process that has one
    gateway = Gateway(settings)
    keys = ClientKeys(settings.client_api_keys)
    metrics = Metrics(gateway.registry.serves)
    limits = _client_limits(settings, gateway.store)
    access = AdminAccess(
        settings.admin_api_key, on_loopback=settings.on_loopback, throttle=Throttle(gateway.store)
    )
    dashboard = Dashboard(gateway.store, gateway.pool, gateway.upstream, access, gateway.readiness)
    listeners: list[Listener] = [RequestLog(), metrics, dashboard.history]
    tracing = open_tracing(
        settings.environ, lambda: {one.name: one.kind for one in gateway.pool.accounts()}
    )
    recorder = Recorder([*listeners, *(one for one in (limits, tracing) if one)])
    replier = Replier(HangupWatch(), gateway.relay.done, recorder)
    aliases = settings.model_aliases

    app = _App("app", static_folder=None)
    app.extensions["gateway"] = gateway
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A redirect to the tidy form of a path would be an HTML page.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False

    @app.before_request
    def _begin() -> None:
        # No secret, and not from the system, whose random bytes cost as much as an event.
        request_id = f"req_{random.getrandbits(96):024x}"
        g.request_id = request_id
        REQUEST_ID.set(request_id)
        gateway.start()

    @app.after_request
    def _end(response: Response) -> Response:
        own = g._get_current_object()
        response.headers["request-id"] = own.request_id
        if "allowance" in own:
            response.headers.update(own.allowance)
        if settings.gateway_debug_headers and "trace" in own:
            response.headers[HEADER] = attempts_header(own.trace)
        return response

    errors.install(app)
    if tracing:
        tracing.install(app)
    tell_refusals(app, recorder)
    guard_pages(app, keyed=bool(settings.client_api_keys))
    app.register_blueprint(
        messages_blueprint(
            gateway.relay,
            replier,
            keys,
            resolve=partial(resolve, aliases=aliases),
            max_request_bytes=settings.max_request_bytes,
            deadline=BodyDeadline(settings.body_timeout),
            limits=limits,
        )
    )
    app.register_blueprint(
        models_blueprint(
            keys,
            catalogue=lambda: catalogue(gateway.registry.models(), aliases),
            lookup=lambda name: find(name, gateway.registry.models(), aliases),
        )
    )
    app.register_blueprint(health_blueprint(gateway.readiness))
    app.register_blueprint(openapi_blueprint(settings.max_request_bytes))
    app.register_blueprint(
        metrics_blueprint(
            metrics,
            PoolCollector(gateway.pool, gateway.readiness),
            access,
            everybody=settings.metrics_open,
        )
    )
    app.register_blueprint(dashboard.blueprint())
    accounts = accounts_commands(gateway.pool, gateway.upstream, gateway.look_in)
    add_changes(accounts, settings, gateway.upstream)
    app.cli.add_command(accounts)
    return app
