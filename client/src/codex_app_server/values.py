"""Outgoing values: what older documents and configurations say, in the words of the server.

Every translation is reported, so that a caller can tell its user which key to mend. A value that
no version knows is refused here, naming the allowed ones; the server's own refusal would come
later and say less. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codex_app_server.errors import InvalidArgument

__all__ = ["approval_policy", "sandbox_mode", "sandbox_policy"]

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


def approval_policy(value: Any, warnings: list[str]) -> Any:
    """Return an approval policy for the wire; translations are appended to ``warnings``.

    ``on-failure`` and ``always`` become ``on-request`` and ``untrusted``; ``{"reject": {...}}``
    becomes ``{"granular": {...}}`` with each flag inverted (there true meant refuse, here true
    means may ask).

    Raises:
        InvalidArgument: Naming the allowed values.
    """
    if value is None or value in APPROVAL_POLICIES:
        return value
    if value == "on-failure":
        warnings.append("approval_policy: 'on-failure' is gone, sent 'on-request'")
        return "on-request"
    if value == "always":
        warnings.append("approval_policy: 'always' never existed, sent 'untrusted'")
        return "untrusted"
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


def sandbox_policy(value: Any, warnings: list[str]) -> Any:
    """Return a turn's sandbox policy for the wire.

    A mode's name becomes its type, ``fullAccess`` becomes ``dangerFullAccess``, and
    ``readOnlyAccess``, which the server ignores, is dropped. Other members pass untouched.

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
    if policy.pop("readOnlyAccess", None) is not None:
        warnings.append("sandbox_policy.readOnlyAccess: the server ignores it, dropped")
    return policy
