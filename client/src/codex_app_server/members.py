"""Members of requests before they are sent: their names, their types, their enums, input items.

Invariants: a member that the pinned schema does not know is refused with the nearest name, unless
the server is newer than the schema and may know it; a value of the wrong type is refused with the
name that the caller gave it. Pure; the generated types are imported when there is something to
check by them, and not before.

Used by `codex_app_server.opening` and `threads` for what is beside their own arguments, by
`codex_app_server.asking` for the typed requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from codex_app_server.checks import Checks, is_text, shown, unknown_names
from codex_app_server.errors import InvalidArgument
from codex_app_server.versions import is_newer_than_schema

__all__ = [
    "camel_name",
    "check_enum",
    "check_types",
    "further_members",
    "input_items",
    "review_target",
    "snake_name",
]

_TEXT = ("a text", lambda value: isinstance(value, str))
_PATH = ("a path as text", is_text)
_NAME = ("a name", is_text)
_Variants = Mapping[str, tuple[Checks, ...]]
_INPUT: _Variants = {
    "text": ({"text": _TEXT},),
    "image": ({"url": _NAME}, {"fileId": _NAME}),
    "localImage": ({"path": _PATH},),
    "audio": ({"url": _NAME}, {"fileId": _NAME}),
    "localAudio": ({"path": _PATH},),
    "skill": ({"name": _NAME, "path": _PATH},),
    "mention": ({"name": _NAME, "path": _PATH},),
}
"""Type of an input item -> the members that it needs; one of several sets."""

_TARGETS: _Variants = {
    "uncommittedChanges": ({},),
    "baseBranch": ({"branch": _NAME},),
    "commit": ({"sha": _NAME},),
    "custom": ({"instructions": _NAME},),
}


def input_items(value: Any, version: str | None) -> list[Any]:
    """Return the input of a turn as items.

    Raises:
        InvalidArgument: Neither a text nor items, nothing at all, or an item that lacks something.
    """
    if isinstance(value, str):
        if not value.strip():
            raise InvalidArgument(f"input={value!r}: give a prompt; it is empty")
        return [{"type": "text", "text": value}]
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise InvalidArgument(f"input={shown(value)}: give a text, or items as mappings")
    if not value:
        raise InvalidArgument("input=[]: give a text, or at least one item")
    items: list[Any] = list(value)
    for number, item in enumerate(items):
        _check_variant(f"input[{number}]", item, _INPUT, version)
    return items


def review_target(value: Any, version: str | None) -> dict[str, Any]:
    """Return what a review is of as the protocol has it.

    Raises:
        InvalidArgument: Neither a word nor a mapping, of an unknown type, or it lacks something.
    """
    target: Any = {"type": value} if isinstance(value, str) else value
    _check_variant("target", target, _TARGETS, version)
    return dict(target)


def _check_variant(name: str, item: Any, variants: _Variants, version: str | None) -> None:
    kinds = ", ".join(variants)
    if not isinstance(item, Mapping):
        raise InvalidArgument(f"{name}={shown(item)}: give a mapping with type: {kinds}")
    kind = item.get("type")
    if not isinstance(kind, str) or not kind:
        raise InvalidArgument(f"{name}.type={shown(kind)}: use {kinds}")
    if kind not in variants:
        if is_newer_than_schema(version):
            return
        raise InvalidArgument(f"{name}.type={kind!r}: use {kinds}")
    ways = variants[kind]
    needed = next((way for way in ways if way.keys() <= item.keys()), None)
    if needed is None:
        words = " or ".join(" and ".join(way) for way in ways)
        raise InvalidArgument(f"{name}: type {kind!r} needs {words}")
    for member, (what, fits) in needed.items():
        if not fits(item[member]):
            raise InvalidArgument(f"{name}.{member}={shown(item[member])}: give {what}")


def further_members(
    method: str, given: Mapping[str, Any], known: type, version: str | None
) -> dict[str, Any]:
    """Return further members of a request in ``camelCase``, checked.

    Args:
        method: Of the request.
        given: By their names in ``snake_case``.
        known: The TypedDict that has them.
        version: Of the server; a newer one than the schema may know more.

    Raises:
        InvalidArgument: An unknown name, or a value of the wrong type.
    """
    names = known.__annotations__
    unknown = [name for name in given if name not in names]
    if unknown and not is_newer_than_schema(version):
        raise InvalidArgument(f"{method}: {unknown_names(unknown, names)}")
    members = {camel_name(name): value for name, value in given.items() if value is not None}
    if members:
        from codex_app_server.protocol import types  # late: costs some 50 ms, and rarely needed

        kind = types.CLIENT_REQUESTS[method].params
        fields = {one.encode_name: one.name for one in msgspec.structs.fields(kind)}
        for wire, value in members.items():
            if wire in fields:
                enum = kind.__annotations__[fields[wire]].partition(" |")[0]
                check_enum(method, fields[wire], value, enum, version)
                check_types(method, {wire: value}, _one_field(method, wire))
    return members


@cache
def _one_field(method: str, wire: str) -> Callable[[bytes], Any]:
    """Return a decoder for one member: the others of its request are not there yet."""
    from codex_app_server.protocol import types

    kind = types.CLIENT_REQUESTS[method].params
    field = next(one for one in msgspec.structs.fields(kind) if one.encode_name == wire)
    made = msgspec.defstruct("Member", [(field.name, field.type)], rename={field.name: wire})
    return msgspec.json.Decoder(made).decode


def check_types(method: str, members: Any, decode: Callable[[bytes], Any]) -> None:
    """Refuse members that JSON cannot carry, or of the wrong type.

    Raises:
        InvalidArgument: Naming the member, as the caller gave it.
    """
    try:
        decode(_encoded(method, members))
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$")
        raise InvalidArgument(f"{method}: {_place(path, members)}{words}") from None


def _encoded(method: str, members: Any) -> bytes:
    try:
        return msgspec.json.encode(members)
    except (TypeError, UnicodeEncodeError, RecursionError, ValueError) as error:
        problem = error
    named = members.items() if isinstance(members, Mapping) else ()
    for wire, value in named:
        try:
            msgspec.json.encode(value)
        except (TypeError, UnicodeEncodeError, RecursionError, ValueError) as error:
            where = f"{snake_name(wire)}={shown(value)}: " if isinstance(wire, str) else ""
            raise InvalidArgument(f"{method}: {where}cannot be sent as JSON ({error})") from None
    raise InvalidArgument(
        f"{method}: params={shown(members)}: cannot be sent as JSON ({problem})"
    ) from None


def _place(path: str, members: Any) -> str:
    """Return ``name=value: `` out of msgspec's path, which is ``.name[0].inner` `` or ````."""
    path = path.removesuffix("`")
    if not path or not isinstance(members, Mapping):
        return f"params{path}: "
    wire, rest = _first(path.removeprefix("."))
    # A deeper value may be anything, a secret too: only what was given itself is shown.
    value = f"={shown(members[wire])}" if not rest and wire in members else ""
    return f"{snake_name(wire)}{rest}{value}: "


def _first(path: str) -> tuple[str, str]:
    ends = [place for place in (path.find("."), path.find("[")) if place > 0]
    end = min(ends, default=len(path))
    return path[:end], path[end:]


def check_enum(method: str, name: str, value: Any, enum: str, version: str | None) -> None:
    """Refuse a word that neither the pinned schema nor a newer server can know.

    Raises:
        InvalidArgument: Naming the allowed ones.
    """
    from codex_app_server.protocol import types

    allowed = types.KNOWN_VALUES.get(enum)
    if allowed is None or not isinstance(value, str) or value in allowed:
        return
    if not is_newer_than_schema(version):
        raise InvalidArgument(f"{method}: {name}={value!r}: use {', '.join(sorted(allowed))}")


def camel_name(name: str) -> str:
    """Return a ``snake_case`` name in ``camelCase``."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def snake_name(name: str) -> str:
    """Return a ``camelCase`` name in ``snake_case``."""
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
