"""docs/observability.md names what there is: every metric, alert and field, and nothing else."""

import re
from pathlib import Path

import pytest
import yaml

from app import create_app
from app.api.record import RequestRecord
from app.config import load_settings
from app.ops.metrics import Metrics, PoolCollector
from app.relay.trace import AttemptRecord, Trace

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "observability.md").read_text()


def table(title):
    """The cells of the rows of the tables under a heading."""
    section = re.split(rf"^#+ {title}\n", PAGE, flags=re.M)[1]
    section = re.split(r"^#+ ", section, flags=re.M)[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.M)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in rows if row[0].startswith("`")]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def described(*titles):
    return {
        names(row[0])[0]: (row[1], tuple(names(row[2]))) for title in titles for row in table(title)
    }


@pytest.fixture
def gateway(tmp_path):
    settings = {"GEMINI_API_KEYS": "k", "STATE_URL": "memory://"}
    return create_app(load_settings(settings, root=tmp_path)).extensions["gateway"]


def test_every_metric_is_named_with_its_type_and_labels(gateway):
    counted = [one for one in vars(Metrics(bool)).values() if hasattr(one, "_labelnames")]
    families = {
        one._name + ("_total" if one._type == "counter" else ""): (one._type, one._labelnames)
        for one in counted
    }
    assert families == described("Requests")
    pool = {}
    for family in PoolCollector(gateway.pool, gateway.readiness).collect():
        if family.type == "info":
            pool[f"{family.name}_info"] = ("gauge", tuple(family.samples[0].labels))
        else:
            pool[family.name] = (family.type, tuple(family._labelnames))
    assert pool == described("The pool")


def test_every_alert_is_named_with_its_severity():
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [(names(row[0])[0], row[1]) for row in table("Alerts")] == [
        (rule["alert"], rule["labels"]["severity"]) for rule in rules
    ]


def test_every_field_of_the_log_is_named():
    trace = Trace([AttemptRecord("a", "p")])
    fields = RequestRecord("r", "/v1/messages", "c", "g", True, trace).fields()
    listed = {name for row in table("Logs") for name in names(row[0])}
    common = {"time", "level", "logger", "pid", "message", "request_id", "exception"}
    assert listed == fields.keys() | common
    (attempts,) = [row for row in table("Logs") if row[0] == "`attempts`"]
    assert names(attempts[1]) == list(fields["attempts"][0])


def test_the_example_is_a_configuration_that_finds_the_rules():
    example = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.S)[1])
    (job,) = example["scrape_configs"]
    assert job["job_name"] == "claude-gateway"
    assert set(job["authorization"]) == {"credentials_file"}  # the type is Bearer by itself
    assert len(example["rule_files"]) == 1
