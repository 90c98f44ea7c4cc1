"""The simulator's own URLs, for tests and people in another process."""

from __future__ import annotations

import json
from typing import Any

from app.simulator.delivery import HTML, Outgoing
from app.simulator.faults import NAMES, UnknownFault
from app.simulator.service import json_answer
from app.simulator.state import MODEL_CALLS, Record, SimulatorState


def control(state: SimulatorState, record: Record, raw: bytes) -> Outgoing:
    """Answer ``/_simulator/…``: what happened, scripts of faults, quotas, revocations."""
    where = f"{record.method} {record.path.removeprefix('/_simulator/')}"
    if where == "GET state":
        return json_answer(_observed(state))
    if record.path == "/_simulator/redirected":
        return Outgoing(200, [("Content-Type", "text/html; charset=UTF-8")], [HTML])
    try:
        body = json.loads(raw or b"{}")
        _apply(state, where, body)
    except UnknownFault as error:
        return json_answer({"error": str(error)}, 400)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return json_answer({"error": f"{where}: what was sent does not fit: {error!r}"}, 400)
    except LookupError as error:
        return json_answer({"error": str(error)}, 404)
    return json_answer({})


def _apply(state: SimulatorState, where: str, body: dict[str, Any]) -> None:
    match where:
        case "POST script":
            state.script(body["key"], body["faults"], on=body.get("on", MODEL_CALLS))
        case "POST quota":
            state.quota(
                body["owner"], body.get("model", "*"), rpm=body.get("rpm"), rpd=body.get("rpd")
            )
        case "POST pace":
            state.pace = float(body["seconds"])
        case "POST revoke":
            state.tokens.revoke(body["owner"])
        case "POST expire":
            state.tokens.expire(body.get("owner"))
        case _:
            raise LookupError(f"there is no {where}")


def _observed(state: SimulatorState) -> dict[str, Any]:
    return {
        "served": state.served,
        "aborted": state.aborted,
        "requests": [
            {
                "method": record.method,
                "path": record.path,
                "key": record.key,
                "project": record.project,
                "fault": record.fault,
                "status": record.status,
                "aborted": record.aborted,
            }
            for record in state.requests
        ],
        "faults": sorted(NAMES),
    }
