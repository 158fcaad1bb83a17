"""The agent tool ``local_board``: what an agent may do to the board, executed in the daemon.

The tool reaches issues of this board by identifier and nothing else, so no argument is ever a
path. Every change answers with the issue as it is then; what the agent got wrong is a failed
result with a message that says what to do, never an exception. Blocks: ``local`` runs it in a
thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from symphony.errors import TrackerError
from symphony.model.issue import normalize_state

from .base import ToolContext, ToolResult, ToolSpec
from .local_board import Board
from .local_document import IssueDocument

NAME: Final = "local_board"
COMMENT_AUTHOR: Final = "agent"
CREATE_STATE: Final = "Backlog"
"""An issue that an agent creates waits for a person unless the agent names an active state."""

_LIST_LIMIT: Final = 200

_INPUT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["action"],
    "properties": {
        "action": {
            "type": "string",
            "enum": ["get", "list", "comment", "move", "create"],
            "description": "What to do. `get`, `comment` and `move` mean the current issue "
            "unless `identifier` names another one.",
        },
        "identifier": {"type": "string", "description": "An issue, for example DEMO-7."},
        "state": {
            "type": "string",
            "description": "move: the new state. create: the state of the new issue "
            f"(default {CREATE_STATE}).",
        },
        "text": {"type": "string", "description": "comment: the comment, Markdown."},
        "states": {
            "type": "array",
            "items": {"type": "string"},
            "description": "list: only issues in these states.",
        },
        "title": {"type": "string", "description": "create: the title."},
        "description": {"type": "string", "description": "create: the description, Markdown."},
        "priority": {
            "type": ["integer", "null"],
            "description": "create: 1 (most urgent) to 4.",
        },
        "labels": {
            "type": "array",
            "items": {"type": "string"},
            "description": "create: labels.",
        },
        "blocked_by": {
            "type": "array",
            "items": {"type": "string"},
            "description": "create: identifiers of the issues that must be finished first.",
        },
    },
}

SPEC: Final = ToolSpec(
    name=NAME,
    description="Read and change the issue board: get an issue with its comments, list issues, "
    "comment, move an issue to another state, create an issue.",
    input_schema=_INPUT_SCHEMA,
)


class _BadArguments(Exception):
    """The agent's arguments can't be used; the message says what to write instead."""


def call(board: Board, name: str, arguments: Any, context: ToolContext) -> ToolResult:
    """Execute one call and answer with JSON, also where it failed."""
    if name != NAME:
        message = f"Unsupported dynamic tool: {json.dumps(name)}."
        return _failure(message, supportedTools=[NAME])
    try:
        if not isinstance(arguments, Mapping):
            raise _BadArguments("`local_board` expects an object with `action`.")
        action = _ACTIONS.get(_text(arguments, "action"))
        if action is None:
            raise _BadArguments(f"`action` must be one of {', '.join(_ACTIONS)}.")
        return ToolResult(True, _json(action(board, arguments, context)))
    except _BadArguments as error:
        return _failure(str(error))
    except TrackerError as error:
        return _failure(error.message, category=error.category, code=error.code)


def _get(board: Board, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    return {"issue": _full(board, _identifier(arguments, context))}


def _list(board: Board, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    wanted = {normalize_state(state) for state in _texts(arguments, "states")}
    view = board.read()
    found = [i for i in view.issues if not wanted or normalize_state(i.state) in wanted]
    answer: dict[str, Any] = {"issues": [_brief(issue) for issue in found[:_LIST_LIMIT]]}
    if len(found) > _LIST_LIMIT:
        answer["omitted"] = len(found) - _LIST_LIMIT
    if view.malformed:
        answer["malformed_files"] = [Path(fault.file).name for fault in view.malformed]
    return answer


def _comment(board: Board, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    text = _text(arguments, "text")
    identifier = _identifier(arguments, context)
    board.comment(identifier, text, author=COMMENT_AUTHOR)
    return {"issue": _full(board, identifier)}


def _move(board: Board, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    state = _text(arguments, "state")
    identifier = _identifier(arguments, context)
    board.move(identifier, state)
    return {"issue": _full(board, identifier)}


def _create(board: Board, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    priority = arguments.get("priority")
    if priority is not None and (not isinstance(priority, int) or isinstance(priority, bool)):
        raise _BadArguments("`priority` must be a whole number, 1 is the most urgent.")
    document = board.add(
        _text(arguments, "title"),
        description=_text(arguments, "description", default=""),
        state=_text(arguments, "state", default=CREATE_STATE),
        priority=priority,
        labels=_texts(arguments, "labels"),
        blocked_by=_texts(arguments, "blocked_by"),
    )
    return {"issue": _full(board, document.identifier)}


_ACTIONS: Final[Mapping[str, Callable[[Board, Mapping[str, Any], ToolContext], dict[str, Any]]]] = {
    "get": _get,
    "list": _list,
    "comment": _comment,
    "move": _move,
    "create": _create,
}


def _identifier(arguments: Mapping[str, Any], context: ToolContext) -> str:
    return _text(arguments, "identifier", default=context.issue.id).strip()


def _text(arguments: Mapping[str, Any], key: str, *, default: str | None = None) -> str:
    value = arguments.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not value.strip():
        raise _BadArguments(f"`local_board` needs a `{key}` that is a text and not blank.")
    return value


def _texts(arguments: Mapping[str, Any], key: str) -> Sequence[str]:
    value = arguments.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _BadArguments(f"`{key}` must be a list of texts.")
    return value


def _brief(document: IssueDocument) -> dict[str, Any]:
    return {
        "identifier": document.identifier,
        "title": document.title,
        "state": document.state,
        "priority": document.priority,
        "labels": list(document.labels),
        "blocked_by": list(document.blocked_by or ()),
        "assignee": document.assignee,
    }


def _full(board: Board, identifier: str) -> dict[str, Any]:
    document = board.get(identifier)
    return {
        "id": document.id,
        **_brief(document),
        "description": document.description,
        "created": document.created_at.isoformat() if document.created_at else None,
        "updated": document.updated_at.isoformat() if document.updated_at else None,
        "comments": [
            {"at": comment.at, "author": comment.author, "text": comment.text}
            for comment in board.comments(identifier)
        ],
    }


def _failure(message: str, **details: Any) -> ToolResult:
    error = {"message": message, **{key: value for key, value in details.items() if value}}
    return ToolResult(False, _json({"error": error}))


def _json(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")
