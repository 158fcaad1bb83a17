"""What the connected server can do: its version, its methods, what replaced those that are gone.

Invariants: what a server can do is asked, not derived from its version (`known_methods` reads the
list in its refusal of an unknown method); the version only decides the floor and which old values
must be translated. A build without a release number (``0.0.0``) counts as the newest. Pure; facts
were observed on 0.125.0, 0.163.0 and 0.169.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from codex_app_server.checks import TEXT, WORDS, check_values, optional
from codex_app_server.errors import (
    OVERLOADED,
    ActiveWriter,
    ExperimentalRequired,
    MethodUnavailable,
    Overloaded,
    RequestError,
    UnsupportedVersion,
)

__all__ = [
    "FLOOR",
    "GONE",
    "PROBE",
    "SCHEMA_VERSION",
    "Capabilities",
    "check_floor",
    "is_newer_than_schema",
    "known_methods",
    "mcp_tool_name",
    "parse_version",
    "refusal",
]

FLOOR = "0.125.0"
"""The oldest version that this library is tested with."""

SCHEMA_VERSION = "0.169.0"
"""That the generated types are of; the same as theirs, without importing them."""

PROBE = "codex_app_server/probe"
"""A method that no server knows; its refusal lists those that it does."""

_NEWEST = (1 << 30, 0, 0)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_UNKNOWN_VARIANT = re.compile(r"unknown variant `([^`]+)`")
_EXPERIMENTAL = re.compile(r"^(\S+) requires experimentalApi capability")
_QUOTED = re.compile(r"`([^`]+)`")

GONE = {
    "newConversation": "start_thread (thread/start)",
    "sendUserMessage": "Thread.run (turn/start)",
    "sendUserTurn": "Thread.run (turn/start)",
    "interruptConversation": "Turn.interrupt (turn/interrupt)",
    "resumeConversation": "resume_thread (thread/resume)",
    "forkConversation": "fork_thread (thread/fork)",
    "listConversations": "threads.list (thread/list)",
    "archiveConversation": "threads.archive (thread/archive)",
    "addConversationListener": "subscribe; thread/start subscribes by itself",
    "removeConversationListener": "threads.unsubscribe (thread/unsubscribe)",
    "loginApiKey": "account.login_api_key (account/login/start)",
    "loginChatGpt": "account.login_chatgpt (account/login/start)",
    "cancelLoginChatGpt": "Login.cancel (account/login/cancel)",
    "logoutChatGpt": "account.logout (account/logout)",
    "execOneOffCommand": "commands.exec (command/exec)",
    "getUserAgent": "Connection.server.user_agent (initialize)",
    "getUserSavedConfig": "config.read (config/read)",
    "setDefaultModel": "config.write_value (config/value/write)",
    "userInfo": "account.read (account/read)",
    "config/write": "config.write_value or config.batch_write",
    "skills/remote/list": "plugins.list (plugin/list)",
    "skills/remote/export": "plugins.install (plugin/install)",
    "skills/remote/read": "skills.list (skills/list)",
    "skills/remote/write": "plugins.install (plugin/install)",
    "thread/rollback": "threads.revert (thread/revert)",
    "device/key/create": "user_verification.enroll (userVerification/enroll)",
    "device/key/public": "user_verification.status (userVerification/status)",
    "device/key/sign": "user_verification.verify (userVerification/verify)",
}
"""Methods of older versions that newer ones do not have, and what does their work."""


_NO_NAME = re.compile(r"[^A-Za-z0-9_]")
_SHORT_NAMES_END = (0, 126, 0)
_HASH_LENGTH = 13


def mcp_tool_name(
    server: str, tool: str, *, siblings: Iterable[str] = (), version: str | None = None
) -> tuple[str, str]:
    """Return the namespace and the name under which the model sees an MCP server's tool.

    All but ASCII letters, digits and ``_`` become ``_``. A pair that is too long (126 characters;
    64 up to 0.125, whose namespaces end in ``__``), or a name that becomes equal to a sibling's,
    gets a hash of the originals. Calls to the MCP server keep the original names.

    Args:
        server: As configured.
        tool: As the server names it.
        siblings: The other tools of that server.
        version: Of Codex; a new one by default.
    """
    check_values(
        server=(server, TEXT),
        tool=(tool, TEXT),
        siblings=(siblings, ("a list of names", _are_names)),
        version=(version, optional(WORDS)),
    )
    old = parse_version(version) < _SHORT_NAMES_END
    limit, namespace = (64, f"mcp__{server}__") if old else (126, f"mcp__{server}")
    clean = _NO_NAME.sub("_", namespace)[: limit - _HASH_LENGTH]
    name = _NO_NAME.sub("_", tool)
    equal = any(_NO_NAME.sub("_", other) == name for other in siblings if other != tool)
    if equal or len(clean) + len(name) > limit:
        import hashlib  # late: costly, and not always needed

        original = f"{server}\0{namespace if old else server}\0\0{tool}\0{tool}"
        digest = hashlib.sha1(original.encode(), usedforsecurity=False).hexdigest()
        name = f"{name[: limit - len(clean) - _HASH_LENGTH]}_{digest[: _HASH_LENGTH - 1]}"
    return clean, name


def _are_names(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return False
    return not isinstance(value, Sequence) or all(isinstance(one, str) for one in value)


class Capabilities(Struct, frozen=True):
    """What the connected server can do.

    Attributes:
        version: Of the server, or None.
        experimental: Whether experimental methods and members may be used.
        methods: That it knows, experimental ones among them; None where it does not tell.
    """

    version: str | None
    experimental: bool
    methods: frozenset[str] | None

    def supports(self, method: str) -> bool:
        """Tell whether the server knows a method; True where it does not tell."""
        check_values(method=(method, TEXT))
        return self.methods is None or method in self.methods


def parse_version(text: str | None) -> tuple[int, int, int]:
    """Return a version for comparison; unreadable and ``0.0.0`` ones count as the newest."""
    match = _VERSION.match(text or "")
    if match is None:
        return _NEWEST
    major, minor, patch = map(int, match.groups())
    return (major, minor, patch) if major or minor or patch else _NEWEST


def is_newer_than_schema(version: str | None) -> bool:
    """Tell whether a server may know methods, members and values that this library does not."""
    return parse_version(version) > parse_version(SCHEMA_VERSION)


def check_floor(version: str | None) -> None:
    """Refuse a server that is too old.

    Raises:
        UnsupportedVersion: It is.
    """
    if version is not None and parse_version(version) < parse_version(FLOOR):
        raise UnsupportedVersion(version, FLOOR)


def known_methods(message: str) -> frozenset[str] | None:
    """Read the methods out of the refusal of an unknown one; None where it lists none."""
    _, found, listed = message.partition("expected one of ")
    return frozenset(_QUOTED.findall(listed)) if found else None


def refusal(
    method: str, code: int, message: str, data: Any = None, version: str | None = None
) -> RequestError:
    """Return the typed error of a refused request."""
    if code == OVERLOADED:
        return Overloaded(method, code, message, data)
    if "already has an active writer" in message:
        return ActiveWriter(method, code, message, data)
    experimental = _EXPERIMENTAL.match(message)
    if experimental:
        return ExperimentalRequired(method, experimental[1], code)
    unknown = _UNKNOWN_VARIANT.search(message)
    if unknown and unknown[1] == method and method != PROBE:
        return MethodUnavailable(method, GONE.get(method), version=version, code=code)
    return RequestError(method, code, message, data)
