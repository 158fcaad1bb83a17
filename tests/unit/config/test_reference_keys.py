"""Every key that the reference knows: its default, what it takes for what, and what is refused.

The table is the one that users of the reference rely on; where SPEC and reference differ, SPEC
counts (``docs/settings.md`` lists those places). Values are YAML, as in a workflow file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from symphony.config.loading import load_workflow
from symphony.errors import SettingsError

if TYPE_CHECKING:
    from .conftest import Loader

NOT_WHOLE = ("0", "-1", "1.5", "five", "''", "true", "[1]")
NO_TEXT = ("5", "true", "[a]", "{a: b}")
NO_LIST = ("'a, b'", "a", "5", "{a: b}", "[5]", "[null]")


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        default: Of an absent key, with ``kind: linear``.
        takes: YAML to the value it becomes.
        refuses: YAML that is a fault of this key.
    """

    default: Any
    takes: dict[str, Any]
    refuses: tuple[str, ...] = ()


def whole(default: int | None) -> Key:
    return Key(default, {"7": 7, "'12'": 12, "+3": 3, "null": default, "~": default}, NOT_WHOLE)


def text(default: str | None, **takes: str) -> Key:
    return Key(default, {"a b": "a b", "null": default, **takes}, NO_TEXT)


STATES = ("Todo", "In Progress")
DONE = ("Closed", "Cancelled", "Canceled", "Duplicate", "Done")
SCRIPT = Key(None, {"echo a": "echo a", "''": "", "null": None, "'5'": "5"}, NO_TEXT)
FLAG = {"true": True, "false": False, "'1'": True, "'0'": False, "'true'": True, "TRUE": True}

KEYS = {
    "tracker.kind": Key("linear", {"' linear '": "linear"}, ("5", "[linear]", "nowhere")),
    "tracker.provider": Key(
        {"project_slug": "p"}, {"{x: {y: [1, yes]}}": {"x": {"y": [1, "yes"]}}}, ("5", "[a]", "a")
    ),
    "tracker.endpoint": Key(None, {"http://a": "http://a"}, NO_TEXT),
    "tracker.api_key": Key(None, {"$SOME_KEY": "$SOME_KEY"}, NO_TEXT),
    "tracker.project_slug": Key("p", {"q": "q"}, NO_TEXT),
    "tracker.assignee": Key(None, {"me": "me", "$WHO": "$WHO"}, NO_TEXT),
    "tracker.required_labels": Key(
        (), {"[' Bug', bug, UI]": ("bug", "ui"), "['']": ("",), "[]": (), "[no]": ("no",)}, NO_LIST
    ),
    "tracker.active_states": Key(STATES, {"[On, 1:30]": ("On", "1:30"), "[]": ()}, NO_LIST),
    "tracker.terminal_states": Key(DONE, {"[' Shipped ']": (" Shipped ",), "[]": ()}, NO_LIST),
    "polling.interval_ms": whole(30_000),
    "workspace.root": Key(
        "/var/tmp/symphony_workspaces",
        {
            "~/code": "~/code",
            "here": "here",
            "$ROOT": "/srv/root",
            "$UNSET": "/var/tmp/symphony_workspaces",
            "''": "/var/tmp/symphony_workspaces",
            "env:ROOT": "env:ROOT",
        },
        NO_TEXT,
    ),
    "worker.ssh_hosts": Key((), {"[a, 'b:22']": ("a", "b:22"), "[]": ()}, NO_LIST),
    "worker.max_concurrent_agents_per_host": whole(None),
    "agent.max_concurrent_agents": whole(10),
    "agent.max_turns": whole(20),
    "agent.max_retry_backoff_ms": whole(300_000),
    "agent.max_concurrent_agents_by_state": Key(
        {},
        # SPEC 5.3.5: an invalid entry is ignored; the reference refuses the file.
        {"{' In PROGRESS ': 2, Todo: '3'}": {"in progress": 2, "todo": 3}, "{a: 0, '': 1}": {}},
        ("5", "[a]", "a"),
    ),
    "codex.command": Key(
        "codex app-server", {"$X --y": "$X --y", "codex | tee": "codex | tee"}, ("''", "' '", "5")
    ),
    "codex.approval_policy": Key(
        {"granular": {"sandbox_approval": False, "rules": False, "mcp_elicitations": False}},
        {
            "never": "never",
            "''": "",
            "{granular: {rules: true}}": {"granular": {"rules": True}},
            "{reject: {sandbox_approval: true, rules: true, mcp_elicitations: true}}": {
                "granular": {"sandbox_approval": False, "rules": False, "mcp_elicitations": False}
            },
        },
        ("5", "[never]", "true"),
    ),
    "codex.thread_sandbox": Key(
        "workspace-write", {"read-only": "read-only", "''": "", "new-one": "new-one"}, NO_TEXT
    ),
    "codex.turn_sandbox_policy": Key(
        None,
        {
            "{type: futureSandbox, nested: {a: [1]}}": {
                "type": "futureSandbox",
                "nested": {"a": [1]},
            }
        },
        ("5", "[a]", "workspace-write"),
    ),
    "codex.turn_timeout_ms": whole(3_600_000),
    "codex.read_timeout_ms": whole(5_000),
    "codex.stall_timeout_ms": Key(
        300_000,
        # SPEC 5.3.6: 0 or less disables it; the reference refuses a negative value.
        {"0": 0, "-1": -1, "'90'": 90},
        ("1.5", "soon", "true"),
    ),
    "hooks.after_create": SCRIPT,
    "hooks.before_run": SCRIPT,
    "hooks.after_run": SCRIPT,
    "hooks.before_remove": SCRIPT,
    "hooks.timeout_ms": whole(60_000),
    "observability.dashboard_enabled": Key(True, FLAG, ("yes", "on", "1", "'no'", "[]")),
    "observability.refresh_ms": whole(1_000),
    "observability.render_interval_ms": whole(16),
    "server.port": Key(None, {"0": 0, "'8080'": 8080}, ("-1", "http", "1.5", "65536", "true")),
    "server.host": Key("127.0.0.1", {"'::1'": "::1", "localhost": "localhost"}, ("''", "5")),
}


def load_with(load: Loader, path: str | None = None, yaml: str = "") -> Any:
    """Load a workflow of Linear with one key set; return the settings."""
    load.environ["ROOT"] = "/srv/root"
    sections: dict[str, list[str]] = {"tracker": []}
    if path is not None:
        section, _, key = path.partition(".")
        sections.setdefault(section, []).append(f"  {key}: {yaml}")
    if path != "tracker.kind":
        sections["tracker"].append("  kind: linear")
    if path not in ("tracker.provider", "tracker.project_slug"):
        sections["tracker"].append("  provider: {project_slug: p}")
    front = "\n".join("\n".join([f"{name}:", *lines]) for name, lines in sections.items())
    return load(f"---\n{front}\n---\nDo it.\n").settings


ALIASES = ("endpoint", "api_key", "project_slug", "assignee")


def value_of(settings: Any, path: str) -> Any:
    section, _, key = path.partition(".")
    if section == "tracker" and key in ALIASES:
        # The flat keys of earlier versions are settings of the provider.
        return settings.tracker.provider.get(key)
    return getattr(getattr(settings, section), key)


@pytest.mark.parametrize("path", KEYS)
def test_an_absent_key_of_the_reference_has_its_default(load: Loader, path: str) -> None:
    assert value_of(load_with(load), path) == KEYS[path].default


@pytest.mark.parametrize(
    ("path", "yaml"), [(path, yaml) for path, key in KEYS.items() for yaml in key.takes]
)
def test_a_key_of_the_reference_takes_what_it_took(load: Loader, path: str, yaml: str) -> None:
    assert value_of(load_with(load, path, yaml), path) == KEYS[path].takes[yaml]


@pytest.mark.parametrize(
    ("path", "yaml"), [(path, yaml) for path, key in KEYS.items() for yaml in key.refuses]
)
def test_a_key_of_the_reference_refuses_the_rest_by_name(
    load: Loader, path: str, yaml: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(load, path, yaml)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert fault.line is not None
    assert fault.problem


def test_an_alias_gives_way_to_the_provider_and_belongs_to_linear(load: Loader) -> None:
    front = "tracker: {kind: linear, project_slug: old, provider: {project_slug: new}}"
    assert load(f"---\n{front}\n---\n").settings.tracker.provider == {"project_slug": "new"}
    other = load("---\ntracker: {kind: local, project_slug: x}\n---\n")
    assert other.settings.tracker.provider == {}
    assert any("tracker.project_slug is ignored" in warning for warning in other.warnings)


@pytest.mark.parametrize(
    ("yaml", "states"),
    [
        ("[yes, no, on, off, y, n]", ("yes", "no", "on", "off", "y", "n")),
        ("[2026-02-26, 12:30:45, 0b1x]", ("2026-02-26", "12:30:45", "0b1x")),
        ("[=, '<<', 'null', \"true\"]", ("=", "<<", "null", "true")),
    ],
)
def test_words_that_yaml_1_1_would_change_stay_text(
    load: Loader, yaml: str, states: tuple[str, ...]
) -> None:
    assert load_with(load, "tracker.active_states", yaml).tracker.active_states == states


@pytest.mark.parametrize(("yaml", "turns"), [("0o17", 15), ("017", 17), ("0x1F", 31)])
def test_numbers_are_those_of_yaml_1_2(load: Loader, yaml: str, turns: int) -> None:
    assert load_with(load, "agent.max_turns", yaml).agent.max_turns == turns


@pytest.mark.parametrize("yaml", ["1_000", "0b101", "1_0.5"])
def test_numbers_of_yaml_1_1_are_text(load: Loader, yaml: str) -> None:
    with pytest.raises(SettingsError, match=r"agent\.max_turns .* got '"):
        load_with(load, "agent.max_turns", yaml)
    assert load_with(load, "tracker.active_states", f"[{yaml}]").tracker.active_states == (yaml,)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_newline_and_a_byte_order_mark_are_read(
    load: Loader, newline: str, mark: str
) -> None:
    lines = ["---", "tracker:", "  kind: local", "agent: {max_turns: 3}", "---", "One.", "", "Two."]
    load.path.write_bytes((mark + newline.join(lines)).encode())
    workflow = load_workflow(load.path, environ=load.environ, profiles=load.profiles)
    assert workflow.settings.agent.max_turns == 3
    assert workflow.prompt_template == "One.\n\nTwo."
    assert workflow.prompt_line == 6
