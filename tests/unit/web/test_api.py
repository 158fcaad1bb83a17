"""The JSON shapes, field by field against those of the reference, and what ours add."""

from __future__ import annotations

import dataclasses
import json
from types import ModuleType
from typing import Any

import pytest

from symphony.model.question import Ask, Option, Question, QuestionKind
from symphony.model.usage import TokenUsage
from symphony.web import api
from symphony.web.backend import RefreshReceipt

TOKENS = {"input_tokens", "output_tokens", "total_tokens"}
RUNNING = {
    "issue_id", "issue_identifier", "issue_url", "state", "worker_host", "workspace_path",
    "session_id", "turn_count", "last_event", "last_message", "started_at", "last_event_at",
    "tokens",
}  # fmt: skip
RETRYING = {
    "issue_id", "issue_identifier", "issue_url", "attempt", "due_at", "error", "worker_host",
    "workspace_path",
}  # fmt: skip
BLOCKED = {
    "issue_id", "issue_identifier", "issue_url", "state", "error", "worker_host", "workspace_path",
    "session_id", "blocked_at", "last_event", "last_message", "last_event_at",
}  # fmt: skip


def as_json(value: Any) -> Any:
    return json.loads(api.encode(value))


def of(value: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """Return the reference's part of an object; a missing key fails."""
    return {key: value[key] for key in keys}


def test_a_running_row_has_the_fields_of_the_reference(snapshots: ModuleType) -> None:
    row = as_json(api.present_running(snapshots.running()))
    row["tokens"] = of(row["tokens"], TOKENS)
    assert of(row, RUNNING) == {
        "issue_id": "id-MT-101",
        "issue_identifier": "MT-101",
        "issue_url": "https://tracker.example/issues/MT-101",
        "state": "In Progress",
        "worker_host": None,
        "workspace_path": "/srv/workspaces/MT-101",
        "session_id": snapshots.SESSION,
        "turn_count": 11,
        "last_event": "turn/completed",
        "last_message": "turn completed (completed)",
        "started_at": "2030-03-17T17:33:35Z",
        "last_event_at": "2030-03-17T17:46:33Z",
        "tokens": {"input_tokens": 120_000, "output_tokens": 450, "total_tokens": 120_450},
    }


def test_a_running_row_adds_its_title_phase_attempt_host_and_process(
    snapshots: ModuleType,
) -> None:
    row = as_json(api.present_running(snapshots.running(attempt=2, host="build-1", profile="docs")))
    assert {key: row[key] for key in row.keys() - RUNNING} == {
        "issue_title": "Make the parser accept empty lines",
        "run_id": "run-MT-101",
        "phase": "StreamingTurn",
        "attempt": 2,
        "host": "build-1",
        "process_id": 4242,
        "thread_id": snapshots.SESSION[:36],
        "runtime_seconds": 785.0,
        "stopping": None,
        "profile": "docs",
    }
    assert row["worker_host"] == "build-1"
    assert row["tokens"]["cached_input_tokens"] == 60_000
    assert row["tokens"]["reasoning_output_tokens"] == 120


def test_a_run_without_events_has_nulls(snapshots: ModuleType) -> None:
    row = as_json(
        api.present_running(
            snapshots.running(
                last_event=None, last_message=None, last_event_wall=None, session_id=None
            )
        )
    )
    assert [row[key] for key in ("last_event", "last_message", "last_event_at", "session_id")] == [
        None
    ] * 4


def test_a_retrying_row_has_the_fields_of_the_reference(snapshots: ModuleType) -> None:
    row = as_json(api.present_retrying(snapshots.retrying()))
    assert of(row, RETRYING) == {
        "issue_id": "id-MT-450",
        "issue_identifier": "MT-450",
        "issue_url": "https://tracker.example/issues/MT-450",
        "attempt": 4,
        "due_at": "2030-03-17T17:46:41Z",
        "error": "rate limit exhausted",
        "worker_host": None,
        "workspace_path": "/srv/workspaces/MT-450",
    }
    assert {key: row[key] for key in row.keys() - RETRYING} == {
        "issue_title": "Rotate the signing keys",
        "state": "Todo",
        "kind": "failure",
        "due_in_seconds": 1.2,
        "waiting_for_slot": False,
        "category": None,
        "profile": None,
    }


def test_a_blocked_row_has_the_fields_of_the_reference(snapshots: ModuleType) -> None:
    row = as_json(api.present_blocked(snapshots.blocked()))
    assert of(row, BLOCKED) == {
        "issue_id": "id-MT-77",
        "issue_identifier": "MT-77",
        "issue_url": "https://tracker.example/issues/MT-77",
        "state": "In Progress",
        "error": "codex asks: which colour?",
        "worker_host": "build-1",
        "workspace_path": "/srv/workspaces/MT-77",
        "session_id": snapshots.SESSION,
        "blocked_at": "2030-03-17T17:36:40Z",
        "last_event": "turn_input_required",
        "last_message": "turn blocked: waiting for user input",
        "last_event_at": "2030-03-17T17:36:40Z",
    }
    assert {key: row[key] for key in row.keys() - BLOCKED} == {
        "issue_title": "Choose a colour for the button",
        "category": "turn_input_required",
        "profile": None,
        "question": None,
        "options": [],
        "unblock_by": [],
        "blocked_until": None,
        "asked": None,
    }


def test_a_blocked_row_tells_what_was_asked_and_what_ends_the_block(snapshots: ModuleType) -> None:
    options = (Option(label="Red", description="warm"), Option(label="Blue"))
    question = Question(
        kind=QuestionKind.INPUT,
        text="Which colour?",
        asks=(Ask(id="q", text="Which colour?", header="Colour", options=options),),
    )
    row = as_json(
        api.present_blocked(
            snapshots.blocked(
                question=question, unblock_by=("answer", "time"), until_wall=snapshots.WALL
            )
        )
    )
    assert (row["question"], row["options"]) == ("Which colour?", ["Red", "Blue"])
    assert row["unblock_by"] == ["answer", "time"]
    assert row["blocked_until"] == "2030-03-17T17:46:40Z"
    assert row["asked"] == {
        "kind": "input",
        "text": "Which colour?",
        "detail": "",
        "wants_decision": False,
        "asks": [
            {
                "id": "q",
                "header": "Colour",
                "text": "Which colour?",
                "options": [
                    {"label": "Red", "description": "warm"},
                    {"label": "Blue", "description": ""},
                ],
                "is_secret": False,
            }
        ],
    }


def test_the_state_has_the_fields_of_the_reference_and_ours(snapshots: ModuleType) -> None:
    state = as_json(
        api.present_state(snapshots.busy(config_error="bad key", sequence=7, cleaning=("MT-5",)))
    )
    assert state["generated_at"] == "2030-03-17T17:46:40Z"
    assert state["counts"] == {"running": 3, "retrying": 3, "blocked": 1, "waiting": 2}
    assert [len(state[key]) for key in ("running", "retrying", "blocked", "waiting")] == [
        3,
        3,
        1,
        2,
    ]
    assert state["codex_totals"] == {
        "input_tokens": 250_000,
        "output_tokens": 18_500,
        "total_tokens": 268_500,
        "seconds_running": 4321.4,
        "cached_input_tokens": 120_000,
        "reasoning_output_tokens": 900,
    }
    assert state["rate_limits"] == snapshots.RATE_LIMITS
    assert state["sequence"] == 7
    assert state["workflow_id"] == "demo-1a2b3c"
    assert state["cleaning"] == ["MT-5"]
    assert state["polling"] == {
        "checking": False,
        "next_poll_in_seconds": 12.3,
        "interval_seconds": 30.0,
        "reason": None,
    }
    assert state["max_concurrent_agents"] == 10
    assert state["problems"] == {
        "config": "bad key",
        "tracker": None,
        "webhooks": None,
        "places": None,
        "ledger": None,
    }
    assert state["shutting_down"] is False
    assert state["waiting"][0] == {
        "issue_id": "id-MT-9",
        "issue_identifier": "MT-9",
        "issue_title": "Ship the release",
        "issue_url": "https://tracker.example/issues/MT-9",
        "state": "Todo",
        "gate": "blockers_done",
        "detail": "waits for MT-101 (In Progress)",
        "profile": None,
    }


def details(snapshots: ModuleType, identifier: str, **options: Any) -> Any:
    fallback = {"workspace_path": "/srv/derived", **options}
    found = api.present_issue(snapshots.busy(), identifier, **fallback)
    return None if found is None else as_json(found)


def test_a_running_issue_tells_its_attempts_and_last_event(snapshots: ModuleType) -> None:
    found = details(snapshots, "MT-102")
    assert found["running"] == as_json(api.present_running(snapshots.busy().running[0]))
    for key in ("running", "runs"):
        del found[key]
    assert found == {
        "issue_identifier": "MT-102",
        "issue_id": "id-MT-102",
        "status": "running",
        "budget": None,
        "workspace": {"path": "/srv/workspaces/MT-102", "host": None},
        "attempts": {"restart_count": 1, "current_retry_attempt": 2},
        "retry": None,
        "blocked": None,
        "logs": {"codex_session_logs": []},
        "recent_events": [
            {
                "at": "2030-03-17T17:46:33Z",
                "event": "item/started",
                "message": "item started: command execution (call_1, in progress): "
                "pytest -q tests/unit",
            }
        ],
        "last_error": None,
        "tracked": {},
        "waiting": None,
    }


def test_a_retrying_issue_tells_its_retry_and_error(snapshots: ModuleType) -> None:
    found = details(snapshots, "MT-450")
    assert found["status"] == "retrying"
    assert found["attempts"] == {"restart_count": 3, "current_retry_attempt": 4}
    assert found["retry"] == as_json(api.present_retrying(snapshots.retrying()))
    assert found["last_error"] == "rate limit exhausted"
    assert found["recent_events"] == []


def test_a_blocked_issue_tells_its_reason_and_host(snapshots: ModuleType) -> None:
    found = details(snapshots, "MT-77")
    assert found["status"] == "blocked"
    assert found["workspace"] == {"path": "/srv/workspaces/MT-77", "host": "build-1"}
    assert found["last_error"] == "codex asks: which colour?"
    assert found["recent_events"][0]["event"] == "turn_input_required"


def test_a_waiting_issue_tells_the_gate_and_where_its_workspace_would_lie(
    snapshots: ModuleType,
) -> None:
    found = details(snapshots, "MT-9")
    assert found["status"] == "waiting"
    assert found["waiting"]["gate"] == "blockers_done"
    assert found["workspace"] == {"path": "/srv/derived", "host": None}
    assert found["attempts"] == {"restart_count": 0, "current_retry_attempt": 0}


def test_a_running_issue_comes_before_a_retry_of_the_same_name(snapshots: ModuleType) -> None:
    snapshot = snapshots.snapshot(
        running=(snapshots.running("A"),),
        retrying=(snapshots.retrying("A"),),
        blocked=(snapshots.blocked("A"),),
    )
    found = api.present_issue(snapshot, "A", workspace_path=None)
    assert found is not None
    assert found.status == "running"
    assert found.retry is not None
    assert found.blocked is not None


def test_an_unknown_issue_is_none(snapshots: ModuleType) -> None:
    assert details(snapshots, "MT-404") is None


def test_events_and_runs_of_the_ledger_are_shown(snapshots: ModuleType) -> None:
    found = details(
        snapshots,
        "MT-101",
        events=[
            {"at": snapshots.WALL, "event": "turn/started", "message": {"method": "turn/started"}},
            {"at": snapshots.WALL - 1, "event": "hook_started", "message": None},
        ],
        runs=[{"run_id": "r2", "transcript_path": "/t/2.jsonl"}, {"run_id": "r1"}],
    )
    assert found["recent_events"] == [
        {"at": "2030-03-17T17:46:40Z", "event": "turn/started", "message": "turn started"},
        {"at": "2030-03-17T17:46:39Z", "event": "hook_started", "message": "hook started"},
    ]
    assert found["runs"] == [{"run_id": "r2", "transcript_path": "/t/2.jsonl"}, {"run_id": "r1"}]
    assert found["logs"]["codex_session_logs"] == [
        {"label": "latest", "path": "/t/2.jsonl", "url": None}
    ]


def test_a_refresh_receipt_has_microseconds(snapshots: ModuleType) -> None:
    assert as_json(api.present_refresh(RefreshReceipt(True, snapshots.WALL + 0.25))) == {
        "queued": True,
        "coalesced": True,
        "requested_at": "2030-03-17T17:46:40.250000Z",
        "operations": ["poll", "reconcile"],
    }


def test_a_failure_has_code_and_message(snapshots: ModuleType) -> None:
    assert as_json(api.present_failure("not_found", "Route not found")) == {
        "error": {"code": "not_found", "message": "Route not found"}
    }


def test_text_that_utf8_cannot_carry_does_not_break_the_state(snapshots: ModuleType) -> None:
    row = snapshots.running(issue_title="half \ud83d emoji")
    state = as_json(api.present_state(snapshots.snapshot(running=(row,))))
    assert state["running"][0]["issue_title"] == "half ? emoji"


def test_a_snapshot_is_rendered_once_for_all_readers(snapshots: ModuleType) -> None:
    calls: list[int] = []

    def render(snapshot: Any) -> bytes:
        calls.append(snapshot.sequence)
        return b"%d" % snapshot.sequence

    cache = api.SnapshotCache(render)
    first = snapshots.snapshot(sequence=1)
    second = dataclasses.replace(first, sequence=2)
    assert [cache.get(first), cache.get(first), cache.get(second)] == [b"1", b"1", b"2"]
    assert calls == [1, 2]


def test_presenting_does_not_depend_on_the_size_of_messages(snapshots: ModuleType) -> None:
    message = {"method": "item/agentMessage/delta", "params": {"delta": "x" * 2_000_000}}
    row = snapshots.running(last_event="n", last_message=message, usage=TokenUsage())
    assert len(api.encode(api.present_running(row))) < 1500


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_json_has_not_become_null(value: float, snapshots: ModuleType) -> None:
    state = as_json(api.present_state(snapshots.snapshot(rate_limits={"x": value})))
    assert state["rate_limits"] == {"x": None}
