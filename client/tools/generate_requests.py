"""Generates ``codex_app_server/protocol/requests.py``: one typed method a request, by family.

    python client/tools/generate_requests.py --codex PATH [--out FILE | --check]

The rules:

- The first segment of a method names its family (`FAMILIES`; longer prefixes win); what is left
  names the Python method, the verb first: ``account/rateLimits/read`` is
  ``Account.read_rate_limits``. `NAMES` has the exceptions.
- Required members are positional up to four; optional ones are keywords that default to UNSET, so
  "not given" and "null" stay apart.
- A list that comes in pages has an ``iterate`` beside its ``list``.
- An answer without members is None.

Requests that hold state in this library (`APART`) are made by ``Connection``, ``Thread`` and
``Turn`` instead. The types are those of ``generate_types.py``.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generate_types import (
    PINNED_VERSION,
    SCALARS,
    Annotation,
    Writer,
    bundles_of_binary,
    class_name,
    snake,
)
from schema_reading import Json, Method, enum_values, methods_of, response_of, tag_of

DEFAULT_OUT = Path(__file__).parents[1] / "src/codex_app_server/protocol/requests.py"

APART = {
    "initialize": "Connection.open",
    "mock/experimentalMethod": "nothing; the server's own test",
    "thread/fork": "Connection.fork_thread",
    "thread/resume": "Connection.resume_thread",
    "thread/start": "Connection.start_thread",
    "turn/interrupt": "Turn.interrupt",
    "turn/start": "Thread.run",
    "turn/steer": "Turn.steer",
}
"""Requests without a generated wrapper, and where they are."""

FAMILIES = {
    "account": "Account",
    "accountSession": "AccountSessions",
    "app": "Apps",
    "collaborationMode": "CollaborationModes",
    "command": "Commands",
    "config": "Config",
    "config/mcpServer": "Mcp",
    "configRequirements": "Config",
    "environment": "Environments",
    "experimentalFeature": "Features",
    "externalAgentConfig": "ExternalAgents",
    "feedback": "Feedback",
    "fs": "Fs",
    "fuzzyFileSearch": "FileSearch",
    "hooks": "Hooks",
    "marketplace": "Marketplaces",
    "mcpServer": "Mcp",
    "mcpServerStatus": "Mcp",
    "memory": "Memories",
    "model": "Models",
    "modelProvider": "ModelProviders",
    "permissionProfile": "PermissionProfiles",
    "plugin": "Plugins",
    "process": "Processes",
    "project": "Projects",
    "remoteControl": "RemoteControl",
    "review": "Reviews",
    "rollout": "Threads",
    "server": "Diagnostics",
    "skills": "Skills",
    "thread": "Threads",
    "thread/attachment": "Attachments",
    "thread/attachmentOwner": "Attachments",
    "thread/backgroundTerminals": "Terminals",
    "thread/goal": "Goals",
    "thread/memory": "Memories",
    "thread/memoryMode": "Memories",
    "thread/queue": "Queue",
    "thread/realtime": "Realtime",
    "thread/section": "ThreadSections",
    "threadSection": "ThreadSections",
    "turn": "Threads",
    "userVerification": "UserVerification",
    "windowsSandbox": "WindowsSandbox",
}

NAMES = {
    "account/gatewayOAuth/cancel": "cancel_gateway_login",
    "account/gatewayOAuth/login": "start_gateway_login",
    "account/gatewayOAuth/read": "read_gateway_login",
    "command/exec/resize": "resize",
    "command/exec/terminate": "terminate",
    "command/exec/write": "write",
    "config/mcpServer/reload": "reload",
    "configRequirements/read": "read_requirements",
    "externalAgentConfig/import/readHistories": "read_import_histories",
    "externalAgentConfig/import/recordHistory": "record_import_history",
    "fuzzyFileSearch": "search",
    "fuzzyFileSearch/sessionStart": "start_session",
    "fuzzyFileSearch/sessionStop": "stop_session",
    "fuzzyFileSearch/sessionUpdate": "update_session",
    "mcpServer/oauth/login": "login",
    "mcpServerStatus/list": "list_status",
    "plugin/share/list": "list_shares",
    "plugin/share/updateTargets": "update_share_targets",
    "remoteControl/client/list": "list_clients",
    "remoteControl/pairing/status": "read_pairing",
    "rollout/compress": "compress_rollouts",
    "server/diagnostics": "read",
    "skills/config/write": "set_enabled",
    "thread/attachmentOwner/list": "list_owners",
    "thread/compact/start": "start_compaction",
    "thread/inject_items": "inject_items",
    "thread/memory/read": "read_thread",
    "thread/memoryMode/set": "set_mode",
    "thread/section/move": "move_thread",
    "threadSection/list": "list",
    "turn/settings/update": "update_turn_settings",
    "windowsSandbox/setupStart": "start_setup",
}

VERBS = {
    "add", "cancel", "capabilities", "check", "clear", "consume", "delete", "detect", "import",
    "install", "list", "login", "move", "read", "remove", "request", "save", "set", "start", "stop",
    "switch", "update", "write", "revoke", "checkout", "call", "upload", "status",
}  # fmt: skip
IDEMPOTENT = {
    "diagnostics", "fuzzyFileSearch", "get", "getMetadata", "info", "installed", "list",
    "listVoices", "read", "readDirectory", "readFile", "readHistories", "readiness", "search",
    "searchOccurrences", "status",
}  # fmt: skip
POSITIONAL = 4

HEADER = '''"""The requests of the Codex app-server protocol, version {version}, by family.

Generated by client/tools/generate_requests.py from the binary's own schema. Do not edit; run

    python client/tools/generate_requests.py --codex PATH-TO-CODEX-{version}

Each method sends one request and returns its decoded answer; ``iterate`` methods read page after
page. Arguments left UNSET are not sent, None is sent as null. ``timeout_s`` is the deadline of
the call (of each page), by default the connection's, or more for what is slow by nature. All
raise what `codex_app_server.Connection.call_raw` raises, `InvalidArgument` for a value of the
wrong type, and `UnexpectedReply` for an answer that is not of its type. Pure:
`codex_app_server.api` gives ``ask``, and makes the families attributes of a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from codex_app_server.protocol import types as t
    from codex_app_server.protocol.unions import Unknown

Ask = Callable[[str, "dict[str, Any] | None", "float | None", bool], Awaitable[Any]]
"""``await ask(method, params, timeout_s, idempotent)`` returns the decoded answer."""


class Family:
    """The root of the families.

    Args:
        ask: Sends a request.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def _pages(
        self, method: str, params: dict[str, Any], timeout_s: float | None
    ) -> AsyncIterator[Any]:
        while True:
            page = await self._ask(method, params, timeout_s, True)
            for one in page.data or ():
                yield one
            if not page.next_cursor or page.next_cursor == params.get("cursor"):
                return
            params = {{**params, "cursor": page.next_cursor}}
'''


@dataclass(frozen=True)
class Parameter:
    """One member of the params."""

    name: str
    wire: str
    text: str
    required: bool
    enum: str | None


def family_of(method: str) -> tuple[str, list[str]]:
    """Return the class of a method and the segments that its prefix leaves."""
    parts = method.split("/")
    for length in range(len(parts), 0, -1):
        prefix = "/".join(parts[:length])
        if prefix in FAMILIES:
            return FAMILIES[prefix], parts[length:]
    raise SystemExit(f"{method}: no family; add it to FAMILIES")


def name_of(method: str) -> str:
    """Return the Python name of a method within its family."""
    if method in NAMES:
        return NAMES[method]
    _, rest = family_of(method)
    *nouns, verb = rest
    words = [verb, *nouns] if verb in VERBS else [*nouns, verb]
    name = re.sub(r"_+", "_", "_".join(snake(word).rstrip("_") for word in words))
    return f"{name}_" if name == "import" else name


class RequestWriter:
    """Turns the methods of a schema into the text of the module."""

    def __init__(self, stable: Json, experimental: Json) -> None:
        self.definitions = experimental
        self.stable = stable
        self.stable_names = {one.name for one in methods_of(stable, "ClientRequest")}
        self.types = Writer(experimental, set(), set(), {})
        self.enums: dict[str, dict[str, str]] = {}

    def families(self) -> dict[str, list[str]]:
        """Return the lines of the methods of each class."""
        found: dict[str, list[str]] = {}
        seen: set[tuple[str, str]] = set()
        for one in methods_of(self.definitions, "ClientRequest"):
            if one.name in APART:
                continue
            family, name = family_of(one.name)[0], name_of(one.name)
            if (family, name) in seen:
                raise SystemExit(f"{one.name}: {family}.{name} is taken; add it to NAMES")
            seen.add((family, name))
            found.setdefault(family, []).extend(self.method(one, name))
        return found

    def method(self, method: Method, name: str) -> list[str]:
        """Return the lines of one method, and of its iterator if it answers in pages."""
        parameters, positional_only = self.parameters(method)
        response = response_of(self.definitions, method)
        answer = self.answer(response)
        idempotent = method.name.rsplit("/", 1)[-1] in IDEMPOTENT
        note = "" if method.name in self.stable_names else " Experimental."
        params = self.members(parameters, positional_only, method)
        lines = [
            "",
            *self.signature("async def", name, parameters, answer),
            f'        """``{method.name}``.{self.extra(method, note)}"""',
        ]
        call = f"await self._ask({method.name!r}, {params}, timeout_s, {idempotent})"
        if answer == "None":
            lines.append(f"        {call}")
        else:
            lines += [f"        answer: {answer} = {call}", "        return answer"]
        wires = {one.wire for one in parameters}
        item = self.item_of(response)
        if "cursor" in wires and item is not None:
            rest = [one for one in parameters if one.wire != "cursor"]
            iterator = "iterate" + name.removeprefix("list").removeprefix("search")
            iterator = "iterate_" + name if name.startswith("search") else iterator
            lines += [
                "",
                *self.signature("def", iterator, rest, f"AsyncIterator[{item}]"),
                f'        """Read all pages of ``{method.name}``.{note}"""',
                f"        return self._pages({method.name!r}, "
                f"{self.members(rest, False, method)}, timeout_s)",
            ]
        return lines

    def extra(self, method: Method, note: str) -> str:
        """Return what a docstring adds: experimental, and which members are."""
        if note:
            return note
        schema = self.definitions.get(method.params or "", {})
        known = self.stable.get(method.params or "", {}).get("properties", {})
        new = sorted(snake(one) for one in schema.get("properties", {}) if one not in known)
        return f" Experimental: {', '.join(new)}." if new else ""

    def parameters(self, method: Method) -> tuple[list[Parameter], bool]:
        """Return the parameters, and whether they are one union given as a whole."""
        if method.params is None:
            return [], False
        schema = self.definitions[method.params]
        if tag_of(schema):
            text = f"{self.reference(method.params)} | Mapping[str, Any]"
            return [Parameter("params", "", text, True, None)], True
        required = set(schema.get("required", []))
        found = []
        for wire, one in sorted(
            schema.get("properties", {}).items(), key=lambda item: item[0] not in required
        ):
            text = self.type_of(self.types.annotation(one, lazy=False))
            enum = self.enum_of(one)
            if enum:
                self.enums.setdefault(method.name, {})[wire] = class_name(enum)
            found.append(Parameter(snake(wire), wire, text, wire in required, enum))
        return found, False

    def enum_of(self, schema: Any) -> str | None:
        """Return the enum that a member is, if it is one."""
        if not isinstance(schema, dict):
            return None
        for one in [schema, *schema.get("allOf", []), *schema.get("anyOf", [])]:
            name: str = one.get("$ref", "").rsplit("/", 1)[-1]
            if name and enum_values(self.definitions[name]):
                return name
        return None

    def reference(self, name: str) -> str:
        """Return a generated type as the module names it."""
        return f"t.{class_name(name)}"

    def type_of(self, kind: Annotation) -> str:
        """Return the type of an argument; a mapping will do for a struct."""
        text = kind.text.replace("list[", "Sequence[").replace("dict[", "Mapping[")
        text = re.sub(r"\b([A-Z]\w*)\b", self._qualified, text)
        return f"{text} | None" if kind.nullable and text != "Any" else text

    def _qualified(self, match: re.Match[str]) -> str:
        name = match[1]
        if name in ("Any", "None", "Sequence", "Mapping"):
            return name
        schema = self.definitions[name]
        struct = tag_of(schema) or self.types.is_struct(name)
        return f"t.{name} | Mapping[str, Any]" if struct else f"t.{name}"

    def answer(self, response: str) -> str:
        """Return the type of an answer."""
        schema = self.definitions[response]
        if tag_of(schema):
            return f"{self.reference(response)} | Unknown"
        if schema.get("type") == "object" and not schema.get("properties"):
            return "None"
        return self.reference(response)

    def item_of(self, response: str) -> str | None:
        """Return the type of the members of a page; None for an answer that is no page."""
        properties = self.definitions[response].get("properties", {})
        items = properties.get("data", {}).get("items")
        if "nextCursor" not in properties or not isinstance(items, dict):
            return None
        name = items.get("$ref", "").rsplit("/", 1)[-1]
        if not name:
            return SCALARS.get(items.get("type", ""), "Any")
        return self.reference(name) + (" | Unknown" if tag_of(self.definitions[name]) else "")

    def signature(
        self, kind: str, name: str, parameters: list[Parameter], answer: str
    ) -> list[str]:
        """Return the lines of a ``def``."""
        required = [f"{one.name}: {one.text}" for one in parameters if one.required]
        optional = [
            f"{one.name}: {one.text if one.text == 'Any' else one.text + ' | UnsetType'} = UNSET"
            for one in parameters
            if not one.required
        ]
        arguments = ["self", *required[:POSITIONAL], "*", *required[POSITIONAL:], *optional]
        arguments.append("timeout_s: float | None = None")
        inner = [f"        {one}," for one in arguments]
        return [f"    {kind} {name}(", *inner, f"    ) -> {answer}:"]

    def members(self, parameters: list[Parameter], whole: bool, method: Method) -> str:
        """Return the expression of the params."""
        if method.params is None:
            return "None"
        if whole:
            return '{"": params}'
        return "{" + ", ".join(f'"{one.wire}": {one.name}' for one in parameters) + "}"

    def write(self, version: str) -> str:
        """Return the text of the module."""
        lines = [HEADER.format(version=version).rstrip("\n")]
        families = self.families()
        for family, methods in sorted(families.items()):
            lines += ["", "", f"class {family}(Family):"]
            lines += [
                f'    """Requests of `Connection.{snake(family)}`."""',
                "",
                "    __slots__ = ()",
            ]
            lines += methods
        lines += ["", "", "FAMILIES: Final[dict[str, type[Family]]] = {"]
        lines += [f'    "{snake(family)}": {family},' for family in sorted(families)]
        lines += ["}", '"""By attribute of a connection."""', ""]
        lines += ["ENUMS: Final[dict[str, dict[str, str]]] = {"]
        for method, enums in sorted(self.enums.items()):
            inside = ", ".join(f'"{wire}": "{enum}"' for wire, enum in sorted(enums.items()))
            lines.append(f'    "{method}": {{{inside}}},')
        lines += ["}", '"""Method -> member -> its enum in ``types.KNOWN_VALUES``."""', ""]
        lines += ["APART: Final[dict[str, str]] = {"]
        lines += [f'    "{method}": "{where}",' for method, where in sorted(APART.items())]
        lines += ["}", '"""Requests without a wrapper here, and where they are."""']
        return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if the file is written or, with ``--check``, up to date."""
    parser = argparse.ArgumentParser(description="Generate the requests of the protocol.")
    parser.add_argument("--codex", type=Path, required=True, help="the native codex binary")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    version, stable, experimental = bundles_of_binary(options.codex)
    if version != PINNED_VERSION:
        print(f"the pinned version is {PINNED_VERSION}, this binary is {version}", file=sys.stderr)
        return 2
    text = RequestWriter(stable, experimental).write(version)
    if options.check:
        same = options.out.is_file() and options.out.read_text() == text
        print("up to date" if same else f"{options.out} differs from the schema", file=sys.stderr)
        return 0 if same else 1
    options.out.write_text(text)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
