from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from symphony.config.budget import IssueLimitSettings, LimitSettings
from symphony.config.settings import Settings, env_reference, setting_keys


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"tracker": {"kind": "local"}, **sections})


def dig(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


DEFAULTS = {
    "tracker.provider": {},
    "tracker.required_labels": (),
    "polling.interval_ms": 30_000,
    "polling.max_interval_ms": 600_000,
    "workspace.on_dirty": "keep_aside",
    "workspace.kept_days": 14,
    "workspace.kept_count": 50,
    "workspace.repository": None,
    "workspace.base": None,
    "workspace.branch": "symphony/{{ issue.identifier }}",
    "workspace.push": False,
    "workspace.git_timeout_ms": 300_000,
    "hooks.after_create": None,
    "hooks.before_run": None,
    "hooks.after_run": None,
    "hooks.before_remove": None,
    "hooks.timeout_ms": 60_000,
    "agent.max_concurrent_agents": 10,
    "agent.max_turns": 20,
    "agent.max_retry_backoff_ms": 300_000,
    "agent.continuation_prompt": None,
    "agent.max_concurrent_agents_by_state": {},
    "agent.profiles": (),
    "agent.unblock_on": ("state", "labels"),
    "agent.blocked_retry_ms": {},
    "agent.active_hours": (),
    "agent.active_hours_timezone": None,
    "agent.after_hours": "continue",
    "breaker.failures": 5,
    "breaker.window_ms": 3_600_000,
    "breaker.canary_ms": 120_000,
    "breaker.cooldown_ms": 600_000,
    "breaker.max_cooldown_ms": 3_600_000,
    "codex.command": "codex app-server",
    "codex.model": None,
    "codex.reasoning_effort": None,
    "codex.approval_policy": {
        "granular": {"sandbox_approval": False, "rules": False, "mcp_elicitations": False}
    },
    "codex.thread_sandbox": "workspace-write",
    "codex.turn_sandbox_policy": None,
    "codex.turn_timeout_ms": 3_600_000,
    "codex.first_event_timeout_ms": 180_000,
    "codex.read_timeout_ms": 5_000,
    "codex.resume_threads": True,
    "codex.stall_timeout_ms": 300_000,
    "codex.buffer_limit_mb": 256,
    "worker.ssh_hosts": (),
    "worker.max_concurrent_agents_per_host": None,
    "worker.min_free_memory_mb": 256,
    "worker.agent_disk_mb": 10,
    "worker.agent_memory_mb": 32,
    "worker.min_free_disk_mb": 512,
    "worker.max_memory_pressure": None,
    "observability.dashboard_enabled": True,
    "observability.refresh_ms": 1_000,
    "observability.render_interval_ms": 16,
    "server.port": None,
    "server.host": "127.0.0.1",
    "budget.turn": LimitSettings(),
    "budget.run": LimitSettings(),
    "budget.issue": IssueLimitSettings(),
    "budget.day": LimitSettings(),
    "budget.total": LimitSettings(),
    "budget.day_timezone": "UTC",
    "budget.prices": {},
    "budget.no_progress_turns": 10,
    "webhooks.secret": None,
    "webhooks.silence_hours": 24,
    "webhooks.poll_interval_ms": 120_000,
    "logging.format": "logfmt",
    "ledger.retention_days": 90,
}


@pytest.mark.parametrize(("path", "default"), DEFAULTS.items())
def test_an_absent_key_has_its_default(path: str, default: object) -> None:
    assert dig(settings(), path) == default


def test_the_table_of_defaults_covers_every_key_that_has_one() -> None:
    elsewhere = {
        "tracker.kind",
        "tracker.active_states",
        "tracker.terminal_states",
        "tracker.endpoint",
        "tracker.api_key",
        "tracker.project_slug",
        "tracker.assignee",
        "workspace.root",
    }
    assert set(setting_keys()) == set(DEFAULTS) | elsewhere


UNLIMITED = (
    "codex.stall_timeout_ms",
    "codex.first_event_timeout_ms",
    "breaker.canary_ms",
    "agent.blocked_retry_ms",
)
"""Times of which 0 or less means none."""

POSITIVE = [path for path in DEFAULTS if path.endswith("_ms") and path not in UNLIMITED] + [
    "workspace.kept_days",
    "workspace.kept_count",
    "agent.max_concurrent_agents",
    "agent.max_turns",
    "worker.max_concurrent_agents_per_host",
    "webhooks.silence_hours",
]


@pytest.mark.parametrize("path", POSITIVE)
@pytest.mark.parametrize("value", [0, -1, "0", "five", "5s", "", 1.5, True, [1], {}, "9" * 30])
def test_a_positive_integer_refuses_anything_else(path: str, value: object) -> None:
    section, key = path.split(".")
    with pytest.raises(ValidationError, match=f"{section}.{key}\n  must be an integer above 0"):
        settings(**{section: {key: value}})


@pytest.mark.parametrize("path", POSITIVE)
def test_a_numeric_string_counts_as_an_integer(path: str) -> None:
    section, key = path.split(".")
    assert dig(settings(**{section: {key: "5000"}}), path) == 5000


@pytest.mark.parametrize(("value", "limit_s"), [(0, None), (-5, None), ("-1", None), (1500, 1.5)])
def test_a_stall_timeout_of_zero_or_less_disables_it(value: object, limit_s: float | None) -> None:
    assert settings(codex={"stall_timeout_ms": value}).codex.stall_timeout_s == limit_s


@pytest.mark.parametrize(
    ("value", "meant"),
    [(True, True), (False, False), ("true", True), ("0", False), ("1", True), ("false", False)],
)
def test_a_boolean_may_be_written_as_a_string(value: object, meant: bool) -> None:
    got = settings(observability={"dashboard_enabled": value})
    assert got.observability.dashboard_enabled is meant


@pytest.mark.parametrize("value", ["yes", "On", 1, 0, [], "TRUE"])
def test_other_words_are_no_boolean(value: object) -> None:
    with pytest.raises(ValidationError, match="must be true or false"):
        settings(observability={"dashboard_enabled": value})


@pytest.mark.parametrize("port", [0, 4000, 65535, "8080"])
def test_a_port_within_range_is_taken(port: object) -> None:
    assert settings(server={"port": port}).server.port == int(str(port))


@pytest.mark.parametrize("port", [-1, 65536, "http", 1.0])
def test_a_port_out_of_range_is_refused(port: object) -> None:
    with pytest.raises(ValidationError, match="must be a port from 0 to 65535"):
        settings(server={"port": port})


@pytest.mark.parametrize("command", ["", "   ", "\n\t"])
def test_a_blank_command_is_refused(command: str) -> None:
    with pytest.raises(ValidationError, match=r"codex\.command\n  can't be blank"):
        settings(codex={"command": command})


@pytest.mark.parametrize("value", ["a,b", {"a": 1}, 5])
@pytest.mark.parametrize("key", ["active_states", "terminal_states", "required_labels"])
def test_states_and_labels_must_be_lists(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match="must be a list of strings"):
        settings(tracker={"kind": "local", key: value})


@pytest.mark.parametrize("entry", [None, 5, True, ["x"]])
def test_a_list_entry_that_is_no_string_is_named(entry: object) -> None:
    with pytest.raises(ValidationError, match="entry 2 is"):
        settings(tracker={"kind": "local", "required_labels": ["a", entry]})


def test_required_labels_are_normalised_and_unique_and_a_blank_one_stays() -> None:
    tracker = {"kind": "local", "required_labels": [" Ready ", "ready", "BACKEND", " "]}
    assert settings(tracker=tracker).tracker.required_labels == ("ready", "backend", "")


def test_states_stay_as_written_and_compare_trimmed_and_lower_case() -> None:
    tracker = settings(tracker={"kind": "local", "active_states": [" In Progress", "Todo"]}).tracker
    assert tracker.active_states == (" In Progress", "Todo")
    assert tracker.active_state_keys == {"in progress", "todo"}


@pytest.mark.parametrize("policy", ["never", "", "some-future-word", {"future": {"x": [1]}}])
def test_any_text_or_map_is_an_approval_policy(policy: object) -> None:
    assert settings(codex={"approval_policy": policy}).codex.approval_policy == policy


@pytest.mark.parametrize("policy", [3, True, ["never"], 1.5])
def test_other_types_are_no_approval_policy(policy: object) -> None:
    with pytest.raises(
        ValidationError, match=r"codex\.approval_policy\n  must be a string or a map"
    ):
        settings(codex={"approval_policy": policy})


@pytest.mark.parametrize("sandbox", ["read-only", "", "future"])
def test_any_text_is_a_thread_sandbox(sandbox: str) -> None:
    assert settings(codex={"thread_sandbox": sandbox}).codex.thread_sandbox == sandbox


def test_an_unknown_turn_policy_is_kept_as_it_is() -> None:
    policy = {"type": "futureSandbox", "writableRoots": ["relative"], "nested": {"a": [1, "b"]}}
    assert settings(codex={"turn_sandbox_policy": policy}).codex.turn_sandbox_policy == policy


@pytest.mark.parametrize("policy", ["workspaceWrite", 5, [], False])
def test_a_turn_policy_must_be_a_map(policy: object) -> None:
    with pytest.raises(ValidationError, match="must be a map of keys and values"):
        settings(codex={"turn_sandbox_policy": policy})


def test_limits_by_state_compare_as_states_and_fall_back_to_the_global_one() -> None:
    limits = {" In Progress ": "2", "Rework": 1, "zero": 0, "word": "x", " ": 3, "half": 1.5}
    agent = settings(
        agent={"max_concurrent_agents": 7, "max_concurrent_agents_by_state": limits}
    ).agent
    assert agent.max_concurrent_agents_by_state == {"in progress": 2, "rework": 1}
    assert agent.limit_for_state("IN PROGRESS ") == 2
    assert agent.limit_for_state("Todo") == 7
    assert agent.limit_for_state("zero") == 7


def test_settings_never_change() -> None:
    frozen = settings()
    with pytest.raises(ValidationError, match="frozen"):
        frozen.agent.max_turns = 3  # type: ignore[misc]  # the point of the test
    assert frozen.agent.max_turns == 20


@pytest.mark.parametrize(
    ("section", "key", "seconds"),
    [
        ("polling", "interval", 30.0),
        ("hooks", "timeout", 60.0),
        ("agent", "max_retry_backoff", 300.0),
        ("codex", "turn_timeout", 3600.0),
        ("codex", "read_timeout", 5.0),
        ("codex", "stall_timeout", 300.0),
        ("observability", "refresh", 1.0),
        ("observability", "render_interval", 0.016),
    ],
)
def test_times_are_to_be_had_in_seconds(section: str, key: str, seconds: float) -> None:
    assert getattr(getattr(settings(), section), f"{key}_s") == seconds


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("$TOKEN", "TOKEN"),
        ("$_a1", "_a1"),
        ("$1A", None),
        ("x$TOKEN", None),
        ("$TOKEN/x", None),
        ("${TOKEN}", None),
        ("env:TOKEN", None),
        ("$TOKEN\n", None),
        ("$", None),
        (5, None),
    ],
)
def test_only_a_whole_value_refers_to_the_environment(value: object, name: str | None) -> None:
    assert env_reference(value) == name
