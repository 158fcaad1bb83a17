"""Outgoing values: what older documents and configurations say, in the words of the server.

What the connected version still knows is sent as it is (``on-failure`` and ``readOnlyAccess`` up
to 0.125), anything else in its successor's words.

Every translation is reported, so that a caller can tell its user which key to mend. A value that
no version knows is refused here, naming the allowed ones; the server's own refusal would come
later and say less. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codex_app_server.checks import shown
from codex_app_server.errors import ExperimentalRequired, InvalidArgument
from codex_app_server.handshake import ServerInfo
from codex_app_server.versions import parse_version

__all__ = [
    "approval_decision",
    "approval_policy",
    "config_overrides",
    "sandbox_mode",
    "sandbox_policy",
    "translate",
]

APPROVAL_POLICIES = ("untrusted", "on-request", "never")
SANDBOX_MODES = ("read-only", "workspace-write", "danger-full-access")
SANDBOX_TYPES = ("dangerFullAccess", "readOnly", "externalSandbox", "workspaceWrite")
_MODES_BY_TYPE = {
    "dangerFullAccess": "danger-full-access",
    "readOnly": "read-only",
    "workspaceWrite": "workspace-write",
}
_GRANULAR_REQUIRED = ("sandbox_approval", "rules", "mcp_elicitations")
_GRANULAR = (*_GRANULAR_REQUIRED, "request_permissions", "skill_approval")
_OLD_VALUES_END = (0, 126, 0)
"""0.125 takes ``on-failure`` and ``readOnlyAccess``, and ``untrusted`` in its configuration;
0.163 does not. The versions between are taken for newer ones."""


def translate(
    method: str, params: Mapping[str, Any], server: ServerInfo, warnings: list[str]
) -> dict[str, Any]:
    """Return the members of a start or a resume for the connected version, without the absent.

    Raises:
        InvalidArgument: A value that no version knows.
        ExperimentalRequired: A granular policy or tools without the capability; the server would
            refuse them.
    """
    present = {name: value for name, value in params.items() if value is not None}
    version = server.version
    if "approvalPolicy" in present:
        present["approvalPolicy"] = policy = approval_policy(
            present["approvalPolicy"], warnings, version
        )
        if isinstance(policy, Mapping) and not server.experimental:
            raise ExperimentalRequired(method, "askForApproval.granular")
    if "sandbox" in present:
        present["sandbox"] = sandbox_mode(present["sandbox"], warnings)
    if "sandboxPolicy" in present:
        present["sandboxPolicy"] = sandbox_policy(present["sandboxPolicy"], warnings, version)
    if "config" in present:
        present["config"] = config_overrides(present["config"], warnings, version)
    if "dynamicTools" in present and not server.experimental:
        raise ExperimentalRequired(method, f"{method}.dynamicTools")
    return present


def _is_old(version: str | None) -> bool:
    return parse_version(version) < _OLD_VALUES_END


def config_overrides(
    value: Mapping[str, Any], warnings: list[str], version: str | None = None
) -> dict[str, Any]:
    """Return overrides of config.toml for the wire, their policy and sandbox translated.

    Raises:
        InvalidArgument: No mapping, or a policy that the server refuses as configuration.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"config={value!r}: use a mapping with dotted keys")
    config = dict(value)
    found: list[str] = []
    if "approval_policy" in config:
        policy = approval_policy(config["approval_policy"], found, version)
        if policy == "untrusted" and not _is_old(version):
            raise InvalidArgument(
                "config.approval_policy='untrusted' is refused as configuration: "
                "give approval_policy='untrusted' to the thread or the turn"
            )
        config["approval_policy"] = policy
    if "sandbox_mode" in config:
        config["sandbox_mode"] = sandbox_mode(config["sandbox_mode"], found)
    warnings += [f"config.{one}" for one in found]
    return config


def approval_policy(value: Any, warnings: list[str], version: str | None = None) -> Any:
    """Return an approval policy for the wire; translations are appended to ``warnings``.

    ``on-failure`` and ``always`` become ``on-request`` and ``untrusted``; ``{"reject": {...}}``
    becomes ``{"granular": {...}}`` with each flag inverted (there true meant refuse, here true
    means may ask); ``{"type": "granular", ...}`` is taken for ``{"granular": {...}}``.

    Raises:
        InvalidArgument: Naming the allowed values.
    """
    if value is None or value in APPROVAL_POLICIES:
        return value
    if value == "on-failure":
        if _is_old(version):
            return value
        warnings.append("approval_policy: 'on-failure' is gone, sent 'on-request'")
        return "on-request"
    if value == "always":
        warnings.append("approval_policy: 'always' never existed, sent 'untrusted'")
        return "untrusted"
    if isinstance(value, Mapping) and value.get("type") == "granular":
        value = {"granular": {key: flag for key, flag in value.items() if key != "type"}}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, flags),) = value.items()
        if name == "reject" and isinstance(flags, Mapping):
            warnings.append(
                "approval_policy: 'reject' is gone, sent 'granular' with inverted flags"
            )
            inverted = {key: not allowed for key, allowed in _flags(name, flags).items()}
            return {"granular": {**dict.fromkeys(_GRANULAR_REQUIRED, True), **inverted}}
        if name == "granular" and isinstance(flags, Mapping):
            checked = _flags(name, flags)
            missing = [key for key in _GRANULAR_REQUIRED if key not in checked]
            if missing:
                raise InvalidArgument(f"approval_policy.granular lacks {', '.join(missing)}")
            return {"granular": checked}
    allowed = ", ".join(APPROVAL_POLICIES)
    raise InvalidArgument(f"approval_policy={value!r}: use {allowed} or {{'granular': {{...}}}}")


def _flags(name: str, flags: Mapping[str, Any]) -> dict[str, bool]:
    for key, flag in flags.items():
        if key not in _GRANULAR:
            raise InvalidArgument(
                f"approval_policy.{name}.{key} is unknown: use {', '.join(_GRANULAR)}"
            )
        if not isinstance(flag, bool):
            raise InvalidArgument(f"approval_policy.{name}.{key}={flag!r}: use true or false")
    return dict(flags)


def sandbox_mode(value: Any, warnings: list[str]) -> Any:
    """Return a thread's sandbox mode for the wire; ``full-access`` and type names are translated.

    Raises:
        InvalidArgument: Naming the allowed values.
    """
    if value is None or value in SANDBOX_MODES:
        return value
    new = {"full-access": "danger-full-access", "fullAccess": "danger-full-access"}.get(
        value if isinstance(value, str) else ""
    )
    new = new or (_MODES_BY_TYPE.get(value) if isinstance(value, str) else None)
    if new is None:
        raise InvalidArgument(f"sandbox={value!r}: use {', '.join(SANDBOX_MODES)}")
    warnings.append(f"sandbox: {value!r} is not a mode, sent {new!r}")
    return new


def sandbox_policy(value: Any, warnings: list[str], version: str | None = None) -> Any:
    """Return a turn's sandbox policy for the wire.

    A mode's name becomes its type, ``fullAccess`` becomes ``dangerFullAccess``, and
    ``readOnlyAccess``, which newer servers ignore, is dropped. Other members pass untouched.

    Raises:
        InvalidArgument: Naming the allowed types.
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else value
    by_mode = {mode: name for name, mode in _MODES_BY_TYPE.items()}
    by_mode |= {"full-access": "dangerFullAccess", "fullAccess": "dangerFullAccess"}
    new = kind if kind in SANDBOX_TYPES else by_mode.get(kind if isinstance(kind, str) else "")
    if new is None:
        raise InvalidArgument(f"sandbox_policy.type={kind!r}: use {', '.join(SANDBOX_TYPES)}")
    if new != kind:
        warnings.append(f"sandbox_policy.type: {kind!r} is not a type, sent {new!r}")
    policy = {**(value if isinstance(value, Mapping) else {}), "type": new}
    if not _is_old(version) and policy.pop("readOnlyAccess", None) is not None:
        warnings.append("sandbox_policy.readOnlyAccess: the server ignores it, dropped")
    return policy


_DECISIONS = ("accept", "acceptForSession", "decline", "cancel")
_OLD_DECISIONS = {
    "approved": "accept",
    "allow": "accept",
    "approved_for_session": "acceptForSession",
    "accept_for_session": "acceptForSession",
    "denied": "decline",
    "deny": "decline",
    "abort": "cancel",
}
_AMENDMENTS = {
    "acceptWithExecpolicyAmendment": ("execpolicyAmendment", "execpolicy_amendment"),
    "applyNetworkPolicyAmendment": ("networkPolicyAmendment", "network_policy_amendment"),
}


def approval_decision(result: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the reply to a command or file approval for the wire.

    ``{"approved": true}`` and the words of the first protocol become decisions; the members of an
    amendment, which the server wants in snake_case and otherwise refuses the command, are renamed.

    Raises:
        InvalidArgument: A decision that no version knows.
    """
    reply = dict(result)
    if isinstance(reply.get("approved"), bool) and "decision" not in reply:
        decision = "accept" if reply.pop("approved") else "decline"
        warnings.append(f"approved: is no member of the reply, sent decision={decision!r}")
        return {**reply, "decision": decision}
    given: Any = reply.get("decision")
    if isinstance(given, Mapping):
        reply["decision"] = _amendment(given, warnings)
    elif isinstance(given, str) and given in _OLD_DECISIONS:
        reply["decision"] = _OLD_DECISIONS[given]
        warnings.append(f"decision: {given!r} is gone, sent {reply['decision']!r}")
    elif not isinstance(given, str) or given not in _DECISIONS:
        raise InvalidArgument(f"decision={shown(given)}: use {', '.join(_DECISIONS)}")
    return reply


def _amendment(decision: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, members in decision.items():
        if name not in _AMENDMENTS or not isinstance(members, Mapping):
            raise InvalidArgument(f"decision {name!r}: use {', '.join(_AMENDMENTS)}")
        old, new = _AMENDMENTS[name]
        inner = dict(members)
        if old in inner:
            inner[new] = inner.pop(old)
            warnings.append(f"decision.{name}.{old}: the server reads {new!r}, sent that")
        if new not in inner:
            raise InvalidArgument(f"decision.{name} lacks {new!r}")
        renamed[name] = inner
    return renamed
