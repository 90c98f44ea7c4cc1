"""The shipped dashboard and alert rules, asked of a real Prometheus that scrapes a real gateway."""

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.relay.errors import Failure
from app.simulator.server import Simulator
from tests.e2e.processes import GatewayProcess
from tests.services import missing

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
ALERTS = ROOT / "deploy" / "alerts.yml"
ALERT_TESTS = ROOT / "tests" / "deploy" / "alerts.test.yml"
NOT_DRIVEN = 'outcome="stopping"'
"""What only a shutdown shows."""

LONG = "A long text that the upstream keeps in its cache. " * 400


def body(text="hello", **more):
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": text}],
        **more,
    }


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel.get("targets")]


def expressions():
    """Each of the dashboard's, with what Grafana would put in."""
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            expression = re.sub(r"\$(instance|model|account)\b", ".+", target["expr"])
            found[panel["title"], target["refId"]] = expression.replace("$__rate_interval", "1m")
    return found


def rules():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments, text=None):
    if not shutil.which("promtool"):
        missing("promtool (Debian's prometheus)")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """A gateway that has met quota, failures, silence, caches and answers."""
    simulator = Simulator(pace=0.0, cache_threshold=100)
    simulator.start()
    with GatewayProcess(
        tmp_path_factory.mktemp("driven"),
        GEMINI_API_KEYS="key-a,key-b,key-c",
        GEMINI_BASE_URL=simulator.base_url,
        KEEPALIVE_INTERVAL="0.1",
        WEB_CONCURRENCY="2",
    ) as gateway:
        simulator.script("key-a", ["429-minute-600"])
        simulator.script("key-b", ["503", "delay-1000"])
        gateway.drive = lambda: [drive(gateway) for _ in range(2)]
        gateway.drive()
        yield gateway
    simulator.stop()


def drive(gateway):
    url = f"{gateway.url}/v1/messages"
    for _ in range(4):
        assert requests.post(url, json=body(LONG, stream=True), timeout=30).ok
    assert requests.post(f"{url}/count_tokens", json=body(str(time.time())), timeout=30).ok
    assert requests.post(url, json={}, timeout=30).status_code == 400


@pytest.fixture(scope="module")
def exposed(driven):
    return requests.get(f"{driven.url}/metrics", timeout=20).text


@pytest.fixture(scope="module")
def prometheus(driven, tmp_path_factory):
    """A Prometheus that scrapes the driven gateway and has loaded the alert rules."""
    if not shutil.which("prometheus"):
        missing("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "250ms", "evaluation_interval": "500ms"},
                "rule_files": [str(ALERTS)],
                "scrape_configs": [
                    {
                        "job_name": "claude-gateway",
                        "static_configs": [{"targets": [f"127.0.0.1:{driven.port}"]}],
                    }
                ],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml",
         f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"),
    )  # fmt: skip

    def ask(path, **parameters):
        url = f"http://127.0.0.1:{port}/api/v1/{path}"
        return requests.get(url, params=parameters, timeout=20).json()

    def query(expression):
        answer = ask("query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def scrapes():
        try:
            found = query('count_over_time(gateway_ready{job="claude-gateway"}[5m])')
        except requests.RequestException:
            assert process.poll() is None, (folder / "log").read_text()
            return 0
        return int(found[0]["value"][1]) if found else 0

    def wait_for_scrapes(number):
        deadline = time.monotonic() + 40
        while scrapes() < number:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        return number

    wait_for_scrapes(2)
    driven.drive()
    wait_for_scrapes(scrapes() + 2)
    yield ask, query
    process.terminate()
    process.wait(20)


def test_every_panel_has_something_to_show(prometheus):
    _, query = prometheus
    empty = [
        where
        for where, expression in expressions().items()
        if NOT_DRIVEN not in expression and not query(expression)
    ]
    assert empty == []


def test_prometheus_evaluates_the_rules_on_what_is_really_exposed(prometheus):
    ask, query = prometheus
    deadline = time.monotonic() + 40
    while True:
        groups = ask("rules")["data"]["groups"]
        found = {rule["name"]: rule for group in groups for rule in group["rules"]}
        if all(rule["health"] == "ok" for rule in found.values()):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert set(found) == {rule["alert"] for rule in rules()}
    # A rule whose series do not exist would be silent for ever.
    for rule in rules():
        for name in set(re.findall(r"gateway_[a-z_]+", rule["expr"])):
            assert query(name), (rule["alert"], name)


def test_names_labels_and_their_values_are_the_gateways(exposed):
    families = list(text_string_to_metric_families(exposed))
    labels: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        labels.setdefault(sample.name, {"instance", "job"}).update(sample.labels)
    values = {
        "state": {"ready", "cooling", "ejected", "unusable", "disabled"},
        "kind": {"input", "cache_read", "output"},
        "outcome": {"ok", "client gone", *(failure.value for failure in Failure)},
        "path": {"/v1/messages", "/v1/messages/count_tokens"},
        "window": {"minute", "day", "unknown"},
    }
    texts = [*expressions().values(), *(rule["expr"] for rule in rules())]
    used = set()
    for text in texts:
        for name, selector in re.findall(r"(gateway_[a-z_]+)(?:\{([^}]*)\})?", text):
            assert name in labels, f"{name} is not exposed, in {text}"
            used.add(name)
            for label, value in re.findall(r'(\w+)[!=]~?"([^"]*)"', selector):
                assert label in labels[name], f"{name} has no label {label}, in {text}"
                if value not in (".+", ".*"):
                    assert set(value.split("|")) <= values[label], f"{label}={value}, in {text}"
        for names in re.findall(r"by \(([^)]*)\)", text):
            known = set().union(*(labels[name] for name in re.findall(r"gateway_[a-z_]+", text)))
            assert {name.strip() for name in names.split(",")} <= known, text
    families_used = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in used}
    assert {family.name for family in families} <= families_used, "exposed, and shown nowhere"


def test_the_exposition_is_as_promtool_wants_it(exposed):
    assert promtool("check", "metrics", text=exposed.encode()) == ""


def test_the_rules_are_valid_and_each_speaks_when_it_should():
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", ALERTS)
    promtool("test", "rules", ALERT_TESTS)
    tested = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    spoken = {
        one["alertname"] for test in tested for one in test["alert_rule_test"]
        if one.get("exp_alerts")
    }  # fmt: skip
    assert spoken == {rule["alert"] for rule in rules()}


def test_every_alert_says_what_is_wrong_how_bad_and_what_to_do():
    for rule in rules():
        assert rule["alert"].startswith("Gateway")
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule
        assert set(rule["annotations"]) == {"summary", "action"}, rule
    titles = {panel["title"] for panel in panels()}
    named = re.findall(r'panels? "([^"]+)"(?: and "([^"]+)")?', ALERTS.read_text())
    assert {title for pair in named for title in pair if title} <= titles


def test_the_dashboard_can_be_imported_anywhere():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "claude-gemini-gateway"
    assert "id" not in dashboard  # Grafana gives it
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        assert panel["title"]
        assert panel["description"]
    squares = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & squares, f"{panel['title']} lies on another panel"
        assert at["x"] + at["w"] <= 24
        squares |= mine
