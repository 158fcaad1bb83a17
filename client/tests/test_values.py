from typing import Any

import pytest
from codex_app_server import ExecClient
from codex_app_server.errors import InvalidArgument, is_retryable, limit_reset
from codex_app_server.values import approval_policy, sandbox_mode, sandbox_policy


@pytest.mark.parametrize(
    ("translate", "given", "sent", "warned"),
    [
        (approval_policy, None, None, False),
        (approval_policy, "never", "never", False),
        (approval_policy, "on-failure", "on-request", True),
        (approval_policy, "always", "untrusted", True),
        (
            approval_policy,
            {"reject": {"sandbox_approval": True, "rules": True, "mcp_elicitations": False}},
            {"granular": {"sandbox_approval": False, "rules": False, "mcp_elicitations": True}},
            True,
        ),
        (
            approval_policy,
            {"granular": {"sandbox_approval": False, "rules": True, "mcp_elicitations": True}},
            {"granular": {"sandbox_approval": False, "rules": True, "mcp_elicitations": True}},
            False,
        ),
        (sandbox_mode, "read-only", "read-only", False),
        (sandbox_mode, "full-access", "danger-full-access", True),
        (sandbox_mode, "workspaceWrite", "workspace-write", True),
        (sandbox_policy, None, None, False),
        (sandbox_policy, "read-only", {"type": "readOnly"}, True),
        (sandbox_policy, {"type": "fullAccess"}, {"type": "dangerFullAccess"}, True),
        (
            sandbox_policy,
            {"type": "workspaceWrite", "readOnlyAccess": {"type": "fullAccess"}, "x": 1},
            {"type": "workspaceWrite", "x": 1},
            True,
        ),
        (
            sandbox_policy,
            {"type": "externalSandbox", "networkAccess": "enabled"},
            {"type": "externalSandbox", "networkAccess": "enabled"},
            False,
        ),
    ],
)
def test_old_values_are_translated_and_reported(
    translate: Any, given: Any, sent: Any, warned: bool
) -> None:
    warnings: list[str] = []
    assert translate(given, warnings) == sent
    assert bool(warnings) is warned


@pytest.mark.parametrize(
    ("translate", "given", "names"),
    [
        (approval_policy, "nope", "on-request"),
        (approval_policy, 5, "granular"),
        (approval_policy, {"granular": {}, "x": 1}, "granular"),
        (approval_policy, {"granular": {"rules": True}}, "sandbox_approval"),
        (approval_policy, {"reject": {"rules": 1}}, "true or false"),
        (sandbox_mode, "nope", "workspace-write"),
        (sandbox_mode, {}, "workspace-write"),
        (sandbox_policy, {}, "workspaceWrite"),
        (sandbox_policy, {"type": ["x"]}, "workspaceWrite"),
        (sandbox_policy, 5, "workspaceWrite"),
    ],
)
def test_what_no_server_knows_is_refused_with_the_allowed_values(
    translate: Any, given: Any, names: str
) -> None:
    with pytest.raises(InvalidArgument, match=names):
        translate(given, [])


def test_only_exhausted_windows_tell_when_a_limit_resets() -> None:
    assert limit_reset(None) is None
    assert limit_reset({"primary": {"usedPercent": 99, "resetsAt": 5}}) is None
    windows = {
        "primary": {"usedPercent": 100, "resetsAt": 5},
        "secondary": {"usedPercent": 120, "resetsAt": 9},
    }
    assert limit_reset(windows) == 9


def test_client_errors_of_the_provider_are_never_retryable() -> None:
    assert is_retryable("httpConnectionFailed", 503)
    assert not is_retryable("httpConnectionFailed", 401)
    assert not is_retryable("unauthorized")


@pytest.mark.parametrize("arguments", [["--ask-for-approval"], ["-a"], ["--ask-for-approval="]])
def test_an_approval_policy_of_exec_that_is_missing_is_named(arguments: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="lacks its policy, such as never"):
        ExecClient("/bin/true").run("go", arguments=arguments)
