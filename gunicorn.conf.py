"""Production server settings: ``gunicorn -c gunicorn.conf.py wsgi:app``."""

import os
import shutil
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Nothing that imports urllib3 may be imported here: the worker patches ssl only after the fork.
from gunicorn.systemd import listen_fds

from app.config import SettingsError, load_settings, log_format
from app.ops.address import check_host, check_port
from app.ops.logs import refusal
from app.ops.metrics_folder import open_folder
from app.ops.start_screen import missing, start_screen
from app.pool.sources import AccountsError, load_accounts, none_left
from app.pool.state import StateError
from app.pool.state.opening import check_store


def _bind_to(settings):
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _checked_settings():
    settings = load_settings(os.environ, check_host=check_host)
    accounts = load_accounts(settings)
    try:
        check_store(settings.state_url, settings.root)
    except StateError as error:
        raise SettingsError(f"STATE_URL: {error}") from None
    return settings, accounts


try:
    _settings, _accounts = _checked_settings()
except (SettingsError, AccountsError) as error:
    sys.exit(refusal(str(error), log_format(os.environ)))

# The workers add up their metrics in files. A reload goes on with them; a master that was started
# by another one (USR2) has files of its own.
_owner = os.environ.get("GATEWAY_METRICS_OWNER", "")
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ or _owner not in ("", str(os.getpid())):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = open_folder()
    os.environ["GATEWAY_METRICS_OWNER"] = str(os.getpid())

bind = _bind_to(_settings)
workers = _settings.web_concurrency
worker_class = "app.ops.worker.GatewayWorker"
worker_connections = 10_000

# A stream may last for many minutes: only a worker whose event loop hangs is killed.
timeout = 120
# Longer than the drain and the linger of idle connections (app/ops/worker.py) after it, so that
# streams end with an error event and not with a cut.
graceful_timeout = int(_settings.drain_timeout) + 10
# Longer than common clients keep idle connections (5 s), so that they never meet a closing one.
keepalive = 15

loglevel = _settings.log_level
logger_class = (
    "app.ops.logs.GunicornJsonLogger"
    if _settings.log_format == "json"
    else "app.ops.logs.GunicornLogger"
)
accesslog = None  # the gateway's own request line says more
# Without the query, where people put keys that belong into headers.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
limit_request_line = 8190
limit_request_fields = 200
limit_request_field_size = 65_536
control_socket_disable = True


def on_exit(server):
    """Remove the files of the metrics."""
    if os.environ.get("GATEWAY_METRICS_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _say_that_the_port_is_taken(server):
    """Name the variable and the way out; gunicorn then tries for seconds, and knows neither."""
    inherited = server.LISTENERS or server.master_pid or listen_fds(unset_environment=False)
    if inherited or bind not in server.cfg.bind:
        return
    try:
        check_port(_settings.host, _settings.port)
    except SettingsError as error:
        # Whoever holds it may be about to end, as at a restart.
        server.log.error("%s; trying for some seconds", error)  # noqa: TRY400 - one line


def on_starting(server):
    """Let SIGHUP with wrong settings change nothing; gunicorn's own way is to end the service."""
    _say_that_the_port_is_taken(server)
    reload = server.reload
    # A reload reads this file anew: what was in force before it is known only here.
    had_accounts, bound = bool(_accounts), bind

    def checked_reload():
        nonlocal had_accounts, bound
        try:
            settings, accounts = _checked_settings()
            if had_accounts and not accounts:
                raise none_left(settings)
            # An address of the command line stays, whatever the settings say.
            if bound in server.cfg.bind and _bind_to(settings) != bound:
                check_port(settings.host, settings.port)
        except (SettingsError, AccountsError) as error:
            # One line for people, without a traceback.
            server.log.error(  # noqa: TRY400
                "reload refused, the old settings stay in force: %s", error
            )
        else:
            had_accounts, bound = bool(accounts), _bind_to(settings)
            reload()

    server.reload = checked_reload


def when_ready(server):
    """Say once what is served, and what is missing."""
    port = server.LISTENERS[0].getsockname()[1]
    everywhere = _settings.host in ("0.0.0.0", "::")  # noqa: S104 - the operator's choice
    name = socket.gethostname() if everywhere else bind.rpartition(":")[0]
    for line in start_screen(_settings, _accounts, f"http://{name}:{port}"):
        server.log.info("%s", line)
    for line in missing(_settings, _accounts):
        server.log.warning("%s", line)


def post_worker_init(worker):
    """Start the worker's background threads."""
    worker.wsgi.extensions["gateway"].start()
