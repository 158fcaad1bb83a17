from __future__ import annotations

from typing import Any

import pytest

from symphony.config.settings import (
    Settings,
    default_approval_policy,
    default_turn_sandbox_policy,
    effective_turn_sandbox_policy,
    translate_codex_policies,
)


def settings(**codex: Any) -> Settings:
    return Settings.model_validate({"tracker": {"kind": "local"}, "codex": codex})


def test_the_default_turn_policy_opens_the_workspace_and_its_git_directory_only() -> None:
    assert default_turn_sandbox_policy("/w/A-1", ["/w/tmp"]) == {
        "type": "workspaceWrite",
        "writableRoots": ["/w/A-1", "/w/A-1/.git", "/w/tmp"],
        "networkAccess": False,
        "excludeTmpdirEnvVar": True,
        "excludeSlashTmp": True,
    }


def test_without_a_policy_a_turn_gets_the_default() -> None:
    policy, added = effective_turn_sandbox_policy(settings(), "/w/A-1", ["/w/tmp"])
    assert (policy, added) == (default_turn_sandbox_policy("/w/A-1", ["/w/tmp"]), ())


def test_without_a_policy_a_read_only_thread_stays_read_only() -> None:
    policy, _ = effective_turn_sandbox_policy(settings(thread_sandbox="read-only"), "/w/A-1")
    assert policy == {"type": "readOnly", "networkAccess": False}


def test_a_workspace_policy_gets_the_workspace_and_its_git_directory() -> None:
    given = {"type": "workspaceWrite", "writableRoots": ["/cache"], "networkAccess": True}
    policy, added = effective_turn_sandbox_policy(settings(turn_sandbox_policy=given), "/w/A-1")
    assert added == ("/w/A-1", "/w/A-1/.git")
    assert policy == {**given, "writableRoots": ["/cache", "/w/A-1", "/w/A-1/.git"]}


def test_what_a_workspace_policy_names_already_is_not_added_again() -> None:
    given = {"type": "workspaceWrite", "writableRoots": ["/w/A-1/.git", "/w/A-1"]}
    policy, added = effective_turn_sandbox_policy(settings(turn_sandbox_policy=given), "/w/A-1")
    assert (policy, added) == (given, ())


def test_the_settings_are_not_changed_by_what_is_added() -> None:
    given = settings(turn_sandbox_policy={"type": "workspaceWrite", "writableRoots": []})
    effective_turn_sandbox_policy(given, "/w/A-1")
    assert given.codex.turn_sandbox_policy == {"type": "workspaceWrite", "writableRoots": []}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "dangerFullAccess"},
        {"type": "externalSandbox", "networkAccess": "enabled"},
        {"type": "readOnly"},
        {"type": "futureSandbox", "writableRoots": ["relative/root"]},
        {"no": "type"},
        {"type": "workspaceWrite", "writableRoots": "not a list: Codex says so"},
    ],
)
def test_any_other_policy_passes_untouched(given: dict[str, Any]) -> None:
    policy, added = effective_turn_sandbox_policy(settings(turn_sandbox_policy=given), "/w/A-1")
    assert (policy, added) == (given, ())


@pytest.mark.parametrize(
    ("reject", "granular"),
    [
        (
            {"sandbox_approval": True, "rules": True, "mcp_elicitations": True},
            {"sandbox_approval": False, "rules": False, "mcp_elicitations": False},
        ),
        (
            {"sandbox_approval": False, "rules": True, "mcp_elicitations": False},
            {"sandbox_approval": True, "rules": False, "mcp_elicitations": True},
        ),
        (
            {"request_permissions": False},
            {
                "sandbox_approval": False,
                "rules": False,
                "mcp_elicitations": False,
                "request_permissions": True,
            },
        ),
        ({}, {"sandbox_approval": False, "rules": False, "mcp_elicitations": False}),
    ],
)
def test_reject_becomes_its_inverse_and_what_it_leaves_open_is_refused(
    reject: dict[str, bool], granular: dict[str, bool]
) -> None:
    values, warnings = translate_codex_policies({"approval_policy": {"reject": reject}})
    assert values == {"approval_policy": {"granular": granular}}
    assert len(warnings) == 1
    assert "codex.approval_policy: 'reject'" in warnings[0]


def test_the_default_is_what_the_old_reject_all_becomes() -> None:
    old = {"reject": {"sandbox_approval": True, "rules": True, "mcp_elicitations": True}}
    values, _ = translate_codex_policies({"approval_policy": old})
    assert values["approval_policy"] == default_approval_policy()


@pytest.mark.parametrize(
    ("key", "old", "new", "named"),
    [
        ("approval_policy", "on-failure", "on-request", "codex.approval_policy"),
        ("approval_policy", "always", "untrusted", "codex.approval_policy"),
        ("thread_sandbox", "full-access", "danger-full-access", "codex.thread_sandbox"),
        (
            "turn_sandbox_policy",
            {"type": "fullAccess"},
            {"type": "dangerFullAccess"},
            "codex.turn_sandbox_policy.type",
        ),
        (
            "turn_sandbox_policy",
            {"type": "workspaceWrite", "readOnlyAccess": {"type": "fullAccess"}},
            {"type": "workspaceWrite"},
            "codex.turn_sandbox_policy.readOnlyAccess",
        ),
    ],
)
def test_an_old_value_is_translated_with_a_warning_that_names_its_key(
    key: str, old: object, new: object, named: str
) -> None:
    values, warnings = translate_codex_policies({key: old})
    assert values[key] == new
    assert warnings[0].startswith(f"{named}: ")


@pytest.mark.parametrize(
    "codex",
    [
        {},
        {"approval_policy": "never", "thread_sandbox": "read-only"},
        {"approval_policy": default_approval_policy()},
        {
            "thread_sandbox": "danger-full-access",
            "turn_sandbox_policy": {"type": "dangerFullAccess"},
        },
        {"approval_policy": 5, "thread_sandbox": None, "turn_sandbox_policy": "x"},
    ],
)
def test_current_values_and_wrong_types_pass_without_a_warning(codex: dict[str, Any]) -> None:
    assert translate_codex_policies(codex) == (codex, [])


@pytest.mark.parametrize("key", ["approval_policy", "thread_sandbox"])
def test_an_unknown_word_is_passed_on_with_a_warning(key: str) -> None:
    values, warnings = translate_codex_policies({key: "future"})
    assert values == {key: "future"}
    assert warnings[0].startswith(f"codex.{key}: 'future' is passed on")


@pytest.mark.parametrize("policy", [{"future": {"x": True}}, {"reject": True}, {}])
def test_a_map_that_codex_does_not_know_is_passed_on_with_a_warning(policy: object) -> None:
    values, warnings = translate_codex_policies({"approval_policy": policy})
    assert values == {"approval_policy": policy}
    assert "a map without 'granular'" in warnings[0]


def test_full_access_for_the_thread_alone_is_warned_of() -> None:
    _, warnings = translate_codex_policies({"thread_sandbox": "danger-full-access"})
    assert "has no effect on turns" in warnings[0]
