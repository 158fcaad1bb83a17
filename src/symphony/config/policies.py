"""Codex's own policy values: the safe defaults, old spellings, and what a turn really gets.

Codex's versions name these values differently and refuse what they don't know, so older workflow
files are translated with a warning that names the key. Unknown values pass untouched: Codex, not
we, decides what they mean (SPEC 5.3.6). Pure; ``settings`` takes its default from here, the runner
asks ``effective_turn_sandbox_policy`` for each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import Settings

_APPROVAL_POLICIES = ("untrusted", "on-request", "never")
_THREAD_SANDBOXES = ("read-only", "workspace-write", "danger-full-access")
_TURN_POLICY_TYPES = ("workspaceWrite", "readOnly", "externalSandbox", "dangerFullAccess")
_OLD_APPROVAL_POLICIES = {"on-failure": "on-request", "always": "untrusted"}
_OLD_THREAD_SANDBOXES = {"full-access": "danger-full-access"}
_OLD_TURN_POLICY_TYPES = {"fullAccess": "dangerFullAccess"}
_GRANULAR_KEYS = ("sandbox_approval", "rules", "mcp_elicitations")


def default_approval_policy() -> dict[str, Any]:
    """Return the policy that never asks: what the sandbox or a rule forbids is refused at once."""
    return {"granular": dict.fromkeys(_GRANULAR_KEYS, False)}


def default_turn_sandbox_policy(
    workspace: str, extra_writable: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the policy of a turn: writes only to the workspace, its ``.git`` and the extra paths.

    No network, and neither ``/tmp`` nor ``$TMPDIR``, so that runs can't reach each other there;
    a run's own temp directory belongs in ``extra_writable``. Codex keeps ``.git`` read-only unless
    it is named, and a worker that can't commit is useless.
    """
    return {
        "type": "workspaceWrite",
        "writableRoots": [*_needed_roots(workspace), *extra_writable],
        "networkAccess": False,
        "excludeTmpdirEnvVar": True,
        "excludeSlashTmp": True,
    }


def effective_turn_sandbox_policy(
    settings: Settings, workspace: str, extra_writable: Sequence[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the policy that a turn in this workspace gets, and the roots that we added to it.

    A ``workspaceWrite`` policy of the user gets the workspace, its ``.git`` and the extra paths
    where they are absent; any other type is returned as it is. Without one, the default counts,
    or a read-only policy where ``codex.thread_sandbox`` asks for ``read-only``.
    """
    policy = settings.codex.turn_sandbox_policy
    if policy is None:
        if settings.codex.thread_sandbox == "read-only":
            return {"type": "readOnly", "networkAccess": False}, ()
        return default_turn_sandbox_policy(workspace, extra_writable), ()
    if policy.get("type") != "workspaceWrite":
        return dict(policy), ()
    roots = policy.get("writableRoots", [])
    if not isinstance(roots, list):
        return dict(policy), ()
    needed = dict.fromkeys((*_needed_roots(workspace), *extra_writable))
    added = tuple(root for root in needed if root not in roots)
    return {**policy, "writableRoots": [*roots, *added]}, added


def _needed_roots(workspace: str) -> tuple[str, str]:
    return workspace, f"{workspace.rstrip('/')}/.git"


def translate_codex_policies(
    codex: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Return the ``codex`` section with old policy values in their current spelling, and warnings.

    Values of a wrong type are left for validation. Each warning names its key, the old value and
    what stands in for it; a value that no known version of Codex has gets a warning and passes.
    """
    values = dict(codex)
    warnings: list[str] = []
    if "approval_policy" in values:
        values["approval_policy"] = _approval_policy(values["approval_policy"], warnings)
    if isinstance(values.get("thread_sandbox"), str):
        values["thread_sandbox"] = _spelling(
            "codex.thread_sandbox",
            values["thread_sandbox"],
            _OLD_THREAD_SANDBOXES,
            _THREAD_SANDBOXES,
            warnings=warnings,
        )
    if isinstance(values.get("turn_sandbox_policy"), Mapping):
        values["turn_sandbox_policy"] = _turn_policy(values["turn_sandbox_policy"], warnings)
    _warn_of_idle_full_access(values, warnings)
    return values, warnings


def _approval_policy(value: Any, warnings: list[str]) -> Any:
    key = "codex.approval_policy"
    if isinstance(value, str):
        return _spelling(key, value, _OLD_APPROVAL_POLICIES, _APPROVAL_POLICIES, warnings=warnings)
    if not isinstance(value, Mapping) or "granular" in value:
        return value
    if not isinstance(value.get("reject"), Mapping):
        warnings.append(
            f"{key}: a map without 'granular' is passed on, but current Codex knows no other"
        )
        return value
    reject = value["reject"]
    # `reject: true` meant "refuse", `granular: true` means "may ask". What the old value leaves
    # open is refused: nobody sits beside the daemon to be asked.
    granular = {name: reject.get(name) is False for name in (*_GRANULAR_KEYS, *reject)}
    warnings.append(
        f"{key}: 'reject' is refused by current Codex and read as its inverse "
        f"'granular': {_flags(granular)}; write that instead"
    )
    return {"granular": granular}


def _flags(granular: Mapping[str, bool]) -> str:
    return "{" + ", ".join(f"{name}: {str(flag).lower()}" for name, flag in granular.items()) + "}"


def _turn_policy(policy: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    key, result = "codex.turn_sandbox_policy", dict(policy)
    if "readOnlyAccess" in result:
        del result["readOnlyAccess"]
        warnings.append(f"{key}.readOnlyAccess: current Codex has no such field; it is left out")
    if isinstance(result.get("type"), str):
        result["type"] = _spelling(
            f"{key}.type",
            result["type"],
            _OLD_TURN_POLICY_TYPES,
            _TURN_POLICY_TYPES,
            warnings=warnings,
        )
    return result


def _spelling(
    key: str, value: str, old: Mapping[str, str], known: Sequence[str], *, warnings: list[str]
) -> str:
    if value in old:
        warnings.append(
            f"{key}: {value!r} is refused by current Codex and read as {old[value]!r}; "
            "write that instead"
        )
        return old[value]
    if value not in known:
        warnings.append(
            f"{key}: {value!r} is passed on, but current Codex knows only {', '.join(known)}"
        )
    return value


def _warn_of_idle_full_access(values: Mapping[str, Any], warnings: list[str]) -> None:
    if values.get("thread_sandbox") == "danger-full-access" and not values.get(
        "turn_sandbox_policy"
    ):
        warnings.append(
            "codex.thread_sandbox: 'danger-full-access' has no effect on turns while "
            "codex.turn_sandbox_policy is absent; turns run under the default workspaceWrite policy"
        )
