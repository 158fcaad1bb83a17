"""Generates ``types.py`` and ``deltas.py`` of ``codex_app_server/protocol`` from a binary's schema.

    python client/tools/generate_types.py --codex PATH [--out FOLDER | --check]

The rules, and why they are so:

- A type that the server sends has a default for every field but ids and deltas: servers of other
  versions leave fields out, and a missing detail must not cost the message.
- A type that only the client sends keeps its required fields; an optional one is UNSET, so that
  "not given" and "null" stay apart.
- A string enum is ``str``; its values of this version are in ``KNOWN_VALUES``. Unknown fields are
  ignored.
- A tagged union becomes one struct a variant. Inside a type that the server sends it is kept as
  ``Raw`` and read through a property, which answers ``Unknown`` for a tag of a later version.
- The params of deltas, which every connection needs at once, are a module of their own: the large
  one is imported when anything else is read typed.
- A union without a tag (``"never" | {"granular": ...}``) is ``Any``.

Only types that a method reaches are written. No clock, no path and no order of a dict of the
machine goes into the result, so the same binary gives the same bytes.
"""

from __future__ import annotations

import argparse
import keyword
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from schema_reading import (
    Json,
    Method,
    SchemaError,
    constant,
    digest,
    enum_values,
    load_bundle,
    members,
    methods_of,
    mixed_values,
    reachable,
    response_of,
    tag_of,
)

PINNED_VERSION = "0.169.0"
DEFAULT_OUT = Path(__file__).parents[1] / "src/codex_app_server/protocol"

KEPT_REQUIRED = {"threadId", "turnId", "itemId", "id", "callId", "requestId", "delta"}
SHADOWING = {"list", "dict", "str", "int", "float", "bool", "property", "field", "tag"}
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}

DELTAS = {
    "item/agentMessage/delta": "AgentMessageDeltaNotification",
    "item/commandExecution/outputDelta": "CommandExecutionOutputDeltaNotification",
    "item/fileChange/outputDelta": "FileChangeOutputDeltaNotification",
    "item/plan/delta": "PlanDeltaNotification",
    "item/reasoning/summaryTextDelta": "ReasoningSummaryTextDeltaNotification",
    "item/reasoning/textDelta": "ReasoningTextDeltaNotification",
}
"""Notifications that add text to an open item, and their params."""

UNLISTED_NOTIFICATIONS = {
    "rawResponse/completed": "RawResponseCompletedNotification",
    "rawResponseItem/completed": "RawResponseItemCompletedNotification",
}
"""Sent with ``experimentalRawEvents``; defined in the schema, but in none of its lists."""


# Writing Python -------------------------------------------------------------------------------


def snake(name: str) -> str:
    """Return a wire name as a Python field name."""
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name))
    text = re.sub(r"\W", "_", text.lower()).strip("_")
    return f"{text}_" if keyword.iskeyword(text) or text in SHADOWING else text


def camel(name: str) -> str:
    """Return what msgspec's ``rename="camel"`` makes of a field name."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def class_name(text: str) -> str:
    """Return a tag or a definition's name as a class name."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W|_", text) if word)


@dataclass(frozen=True)
class Annotation:
    """The Python type of a schema; ``union`` names the tagged union that it holds as Raw."""

    text: str
    nullable: bool = False
    union: str | None = None
    shape: str = "one"


@dataclass
class Writer:
    """Turns definitions into the text of the module."""

    definitions: Json
    sent_by_client: set[str]
    sent_by_server: set[str]
    notes: dict[str, str]
    lines: list[str] = field(default_factory=list)
    known: dict[str, list[str]] = field(default_factory=dict)

    def is_struct(self, name: str) -> bool:
        """Tell whether a definition is written as a struct of its own."""
        schema = self.definitions[name]
        if schema.get("type") != "object" or tag_of(schema):
            return False
        return bool(schema.get("properties")) or name in self.notes

    def annotation(self, schema: Any, lazy: bool) -> Annotation:
        """Return the Python type of a property's schema.

        Args:
            schema: The schema of the property.
            lazy: Whether unions stay Raw, as they do in what the server sends.
        """
        if not isinstance(schema, dict):
            return Annotation("Any")
        if "$ref" in schema:
            return self._reference(schema["$ref"].rsplit("/", 1)[-1], lazy)
        for key in ("allOf", "anyOf", "oneOf"):
            if key in schema:
                rest = [one for one in schema[key] if one.get("type") != "null"]
                if len(rest) != 1:
                    return Annotation("Any")
                inner = self.annotation(rest[0], lazy)
                nullable = inner.nullable or len(rest) < len(schema[key])
                return Annotation(inner.text, nullable, inner.union, inner.shape)
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        rest = [kind for kind in kinds if kind != "null"]
        if len(rest) != 1 or rest[0] is None:
            return Annotation("Any")
        return self._plain(rest[0], schema, len(rest) < len(kinds), lazy)

    def _reference(self, name: str, lazy: bool) -> Annotation:
        schema = self.definitions[name]
        if tag_of(schema):
            return Annotation("Raw", union=name) if lazy else Annotation(class_name(name))
        return Annotation(class_name(name))

    def _plain(self, kind: str, schema: Json, nullable: bool, lazy: bool) -> Annotation:
        if kind in SCALARS:
            return Annotation(SCALARS[kind], nullable)
        if kind == "array" and isinstance(schema.get("items"), dict):
            return self._container("list[{}]", "many", schema["items"], nullable, lazy)
        if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            values = schema["additionalProperties"]
            return self._container("dict[str, {}]", "values", values, nullable, lazy)
        return Annotation({"array": "list[Any]", "object": "dict[str, Any]"}[kind], nullable)

    def _container(
        self, form: str, shape: str, schema: Json, nullable: bool, lazy: bool
    ) -> Annotation:
        inner = self.annotation(schema, lazy)
        if inner.union and inner.shape != "one":
            return Annotation(form.format("Any"), nullable)
        text = f"{inner.text} | None" if inner.nullable and inner.text != "Raw" else inner.text
        return Annotation(form.format(text), nullable, inner.union, shape)

    def struct(
        self, name: str, owner: str, schemas: list[Json], tag: tuple[str, str] | None
    ) -> None:
        """Write one class; several schemas are a union's common fields and a variant's own."""
        inbound = owner in self.sent_by_server
        properties: Json = {}
        required: set[str] = set()
        for schema in schemas:
            properties.update(schema.get("properties", {}))
            required.update(schema.get("required", []))
        head = f", tag_field={tag[0]!r}, tag={tag[1]!r}" if tag else ""
        body = [f'    """{self.notes[name]}"""'] if name in self.notes else []
        body += [f"    tag: ClassVar[str] = {tag[1]!r}"] if tag else []
        readers: list[str] = []
        for wire, schema in sorted(properties.items(), key=lambda one: one[0] not in required):
            if tag and wire == tag[0]:
                continue
            kind = self.annotation(schema, lazy=inbound)
            self._field(body, readers, wire, kind, wire in required, inbound)
        self.lines += [
            "",
            "",
            f"class {name}(Message, kw_only=True{head}):",
            *(body + readers or ["    pass"]),
        ]

    def _field(
        self,
        body: list[str],
        readers: list[str],
        wire: str,
        kind: Annotation,
        required: bool,
        inbound: bool,
    ) -> None:
        name = snake(wire)
        text, default = kind.text, None
        if inbound:
            required = required and wire in KEPT_REQUIRED and kind.union is None
            if not required:
                default = "EMPTY" if text == "Raw" else "None"
                text = text if text in ("Raw", "Any") else f"{text} | None"
        else:
            text = f"{text} | None" if kind.nullable and text != "Any" else text
            if not required:
                default = "UNSET"
                text = text if text == "Any" else f"{text} | UnsetType"
        stored = f"{name}_raw" if kind.union else name
        options = [] if camel(stored) == wire else [f"name={wire!r}"]
        if default and options:
            options.insert(0, f"default={default}")
        value = f"field({', '.join(options)})" if options else default
        body.append(f"    {stored}: {text}" + (f" = {value}" if value else ""))
        if kind.union:
            readers += self._reader(name, stored, kind.union, kind.shape)

    def _reader(self, name: str, stored: str, union: str, shape: str) -> list[str]:
        kind = class_name(union)
        answer = {
            "one": f"{kind} | Unknown | None",
            "many": f"list[{kind} | Unknown]",
            "values": f"dict[str, {kind} | Unknown]",
        }[shape]
        return [
            "",
            "    @property",
            f"    def {name}(self) -> {answer}:",
            f"        return _{kind}.{shape}(self.{stored})",
        ]

    def union(self, name: str, tag: str) -> None:
        """Write the variants of a tagged union, its alias and its lazy decoder."""
        schema, kind = self.definitions[name], class_name(name)
        names: list[str] = []
        for variant in members(schema):
            value = constant(variant["properties"][tag])
            if value is None:
                raise SchemaError(f"{name}: a variant without a tag")
            variant_name = class_name(value) + kind
            if variant_name in names:  # "openai/form" beside "openaiForm"
                variant_name = f"{class_name(value)}{len(names)}{kind}"
            if variant_name in self.definitions or variant_name in names:
                raise SchemaError(f"{variant_name}: this class name is taken")
            self.struct(variant_name, name, [schema, variant], (tag, value))
            names.append(variant_name)
        self.lines += ["", "", f"{kind}: TypeAlias = (", f"    {names[0]}"]
        self.lines += [f"    | {one}" for one in names[1:]]
        self.lines += [")", f"_{kind}: TaggedUnion[{kind}] = TaggedUnion({tag!r}, lambda: {kind})"]

    def alias(self, name: str) -> None:
        """Write a definition that is no struct and no tagged union."""
        schema = self.definitions[name]
        values = enum_values(schema)
        if values is not None:
            target = "str"
        elif schema.get("type") == "object":
            target = "dict[str, Any]"
        elif [one.get("type") for one in members(schema)] == ["string", "integer"]:
            target, values = "str | int", []
        else:
            target, values = "Any", mixed_values(schema)
        if values:
            self.known[class_name(name)] = values
        self.lines.append(f"{class_name(name)}: TypeAlias = {target}")

    def write_deltas(self) -> list[str]:
        """Write the params of deltas; return the names of those that there are."""
        present = [name for name in sorted(DELTAS.values()) if name in self.sent_by_server]
        for name in present:
            self.struct(class_name(name), name, [self.definitions[name]], None)
        return present

    def write(self) -> None:
        """Write all other reachable definitions: aliases, structs, then unions over them."""
        names = sorted(self.sent_by_client | self.sent_by_server)
        unions = {name: tag for name in names if (tag := tag_of(self.definitions[name]))}
        structs = [name for name in names if self.is_struct(name)]
        for name in names:
            if name not in unions and name not in structs:
                self.alias(name)
        for name in structs:
            if name in DELTAS.values():
                continue
            self.struct(class_name(name), name, [self.definitions[name]], None)
        for name, tag in unions.items():
            self.union(name, tag)


# The module -----------------------------------------------------------------------------------

HEADER = '''"""Types of the Codex app-server protocol, version {version}.

Generated by client/tools/generate_types.py from the binary's own schema. Do not edit; run

    python client/tools/generate_types.py --codex PATH-TO-CODEX-{version}

The rules are in the generator. In short: what the server sends may lack anything but its ids,
nested unions are read through properties that answer ``Unknown`` for a tag of a later version,
enums are open strings, and what the client sends leaves out what is UNSET.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from msgspec import UNSET, Raw, UnsetType, field

from codex_app_server.protocol.deltas import {imports}
from codex_app_server.protocol.unions import EMPTY, TaggedUnion, Unknown

SCHEMA_VERSION: Final = {version!r}
SCHEMA_SHA256: Final = {digest!r}
"""Of the stable and the experimental definitions as canonical JSON."""


class RequestTypes(NamedTuple):
    """The types of a request that the client sends.

    Attributes:
        params: A struct, or None for a method whose params are null.
        response: A struct, or Any.
        params_required: False where null may stand for the params.
        experimental: Needs the capability ``experimentalApi``.
    """

    params: Any
    response: Any
    params_required: bool
    experimental: bool

'''


DELTAS_HEADER = '''"""Params of the deltas of the Codex app-server protocol, version {version}.

Generated by client/tools/generate_types.py together with `codex_app_server.protocol.types`, which
has these too. Do not edit. A connection decodes deltas from its start, and the other types when
somebody reads them.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct


class Message(Struct, rename="camel", omit_defaults=True):
    """The root of all generated types."""
'''


class Generated(NamedTuple):
    """The text of each module."""

    types: str
    deltas: str


def notes_of(
    requests: list[Method], server_requests: list[Method], notifications: dict[str, str]
) -> dict[str, str]:
    """Return a docstring for each type that belongs to a method."""
    notes: dict[str, list[str]] = {}
    for method in requests + server_requests:
        if method.params:
            notes.setdefault(method.params, []).append(f"Params of ``{method.name}``")
        if method.response:
            notes.setdefault(method.response, []).append(f"Answer to ``{method.name}``")
    for name, kind in notifications.items():
        notes.setdefault(kind, []).append(f"``{name}``")
    return {kind: "; ".join(texts) + "." for kind, texts in notes.items()}


def tables(
    requests: list[Method], server_requests: list[Method], notifications: dict[str, str]
) -> list[str]:
    """Return the lines of the tables from methods to types."""
    lines = ["", "", "NOTIFICATIONS: Final[dict[str, Any]] = {"]
    lines += [f"    {name!r}: {class_name(kind)}," for name, kind in sorted(notifications.items())]
    lines += ["}", '"""Method -> type of the params."""', ""]
    for table, part in (("SERVER_REQUESTS", "params"), ("SERVER_RESPONSES", "response")):
        lines += [f"{table}: Final[dict[str, Any]] = {{"]
        lines += [f"    {one.name!r}: {class_name(getattr(one, part))}," for one in server_requests]
        lines += ["}", f'"""Method -> type of the {part}, of what the server asks."""', ""]
    lines += ["CLIENT_REQUESTS: Final[dict[str, RequestTypes]] = {"]
    for one in requests:
        params = class_name(one.params) if one.params else "None"
        rest = f"{class_name(one.response or '')}, {one.params_required}, {one.experimental}"
        lines.append(f"    {one.name!r}: RequestTypes({params}, {rest}),")
    return [*lines, "}", '"""Method -> types, of what the client asks."""']


def generate(version: str, stable: Json, experimental: Json) -> Generated:
    """Return the text of the modules.

    Args:
        version: The version of the binary that printed the schema.
        stable: Definitions without experimental methods.
        experimental: Definitions with them.

    Raises:
        SchemaError: The schema has a shape that the rules do not cover.
    """
    stable_names = {method.name for method in methods_of(stable, "ClientRequest")}
    requests, server_requests = (
        [
            Method(
                one.name,
                one.params,
                one.params_required,
                response_of(experimental, one),
                union == "ClientRequest" and one.name not in stable_names,
            )
            for one in methods_of(experimental, union)
        ]
        for union in ("ClientRequest", "ServerRequest")
    )
    listed = methods_of(experimental, "ServerNotification")
    notifications = {one.name: one.params for one in listed if one.params} | UNLISTED_NOTIFICATIONS
    asked = [one.params for one in requests] + [one.response for one in server_requests]
    told = [one.response for one in requests] + [one.params for one in server_requests]
    told += notifications.values()
    writer = Writer(
        definitions=experimental,
        sent_by_client=reachable(experimental, {name for name in asked if name}),
        sent_by_server=reachable(experimental, {name for name in told if name}),
        notes=notes_of(requests, server_requests, notifications),
    )
    present = writer.write_deltas()
    deltas, writer.lines = writer.lines, []
    writer.write()
    head = HEADER.format(
        version=version,
        digest=digest(stable, experimental),
        imports=_imported(["Message", *present]),
    )
    lines = writer.lines + tables(requests, server_requests, notifications)
    lines += ["", "KNOWN_VALUES: Final[dict[str, frozenset[str]]] = {"]
    for name, values in sorted(writer.known.items()):
        lines += [f"    {name!r}: frozenset((", *(f"        {one!r}," for one in values), "    )),"]
    lines += ["}", '"""Values of each open enum, and the strings or keys of untagged unions."""']
    deltas += ["", "", "DELTAS: Final[dict[str, Any]] = {"]
    deltas += [f"    {method!r}: {name}," for method, name in DELTAS.items() if name in present]
    deltas += ["}", '"""Method -> type of the params."""']
    return Generated(
        types=head + "\n".join(lines) + "\n",
        deltas=DELTAS_HEADER.format(version=version) + "\n".join(deltas) + "\n",
    )


def _imported(names: list[str]) -> str:
    """Return the end of an import statement that also exports its names."""
    return "(\n" + "".join(f"    {name} as {name},\n" for name in sorted(names)) + ")"


# The binary -----------------------------------------------------------------------------------


def binary_version(codex: Path, home: Path) -> str:
    """Return the version that a binary prints, for example ``0.169.0``."""
    return _run([str(codex), "--version"], home).split()[-1]


def bundles_of_binary(codex: Path) -> tuple[str, Json, Json]:
    """Return a binary's version and its definitions, stable and with the experimental ones.

    Raises:
        subprocess.CalledProcessError: The binary fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        command = [str(codex), "app-server", "generate-json-schema", "--out"]
        _run([*command, f"{folder}/stable"], home)
        _run([*command, f"{folder}/experimental", "--experimental"], home)
        stable, experimental = (
            load_bundle(Path(folder, name)) for name in ("stable", "experimental")
        )
        return binary_version(codex, home), stable, experimental


def generate_from_binary(codex: Path) -> tuple[str, Generated]:
    """Return a binary's version and the modules that its schema gives.

    Raises:
        SchemaError: See ``generate``.
        subprocess.CalledProcessError: The binary fails.
    """
    version, stable, experimental = bundles_of_binary(codex)
    return version, generate(version, stable, experimental)


def _run(command: list[str], home: Path) -> str:
    environment = {"HOME": str(home), "CODEX_HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if the file is written or, with ``--check``, up to date."""
    parser = argparse.ArgumentParser(description="Generate the types of the app-server protocol.")
    parser.add_argument("--codex", type=Path, required=True, help="the native codex binary")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    version, generated = generate_from_binary(options.codex)
    if version != PINNED_VERSION:
        print(f"the pinned version is {PINNED_VERSION}, this binary is {version}", file=sys.stderr)
        return 2
    texts = {options.out / f"{name}.py": text for name, text in generated._asdict().items()}
    if options.check:
        differing = [
            path for path, text in texts.items() if not path.is_file() or path.read_text() != text
        ]
        for path in differing:
            print(f"{path} differs from the schema", file=sys.stderr)
        if not differing:
            print("up to date", file=sys.stderr)
        return 1 if differing else 0
    for path, text in texts.items():
        path.write_text(text)
        print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
