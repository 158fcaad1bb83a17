"""From a server request to the question that a person gets to see, and to what it is exactly about.

Role: takes the questions of ``item/tool/requestUserInput``, the message and schema of an MCP form,
the command or the file change of an approval. Invariant: what comes out is bounded, has no control
characters and no registered secret; ``subject`` alone is made of what was asked as it was, so that
an approval never covers anything but exactly that. Pure; ``requests`` asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from codex_app_server import RequestKind, ServerRequestInfo

from symphony.model.question import Ask, Option, Question, QuestionKind

TEXT_LIMIT: Final = 2000
"""Characters of a question and of a detail's single parts."""
DETAIL_LIMIT: Final = 4000
LABEL_LIMIT: Final = 200
ASKS_LIMIT: Final = 10
OPTIONS_LIMIT: Final = 20

Redact = Callable[[str], str]
Item = Mapping[str, Any]

_KINDS = {
    RequestKind.USER_INPUT: QuestionKind.INPUT,
    RequestKind.ELICITATION: QuestionKind.FORM,
    RequestKind.COMMAND: QuestionKind.COMMAND,
    RequestKind.LEGACY_COMMAND: QuestionKind.COMMAND,
    RequestKind.FILE_CHANGE: QuestionKind.FILE_CHANGE,
    RequestKind.LEGACY_FILE_CHANGE: QuestionKind.FILE_CHANGE,
    RequestKind.PERMISSIONS: QuestionKind.PERMISSIONS,
    RequestKind.MCP_TOOL: QuestionKind.TOOL,
}
_WANTED = {
    QuestionKind.COMMAND: "run a command",
    QuestionKind.FILE_CHANGE: "change files",
    QuestionKind.PERMISSIONS: "get further permissions",
    QuestionKind.TOOL: "call an MCP tool",
}


def question_of(request: ServerRequestInfo, item: Item | None, redact: Redact) -> Question:
    """Return what a request asks of a person.

    Args:
        request: One that waits for a person.
        item: The item that it is about as it was started, where that is known.
        redact: Takes registered secrets out of a text.
    """
    kind = _KINDS.get(request.kind, QuestionKind.PERMISSIONS)
    params = request.params

    def told(value: object, limit: int = TEXT_LIMIT) -> str:
        return _bounded(redact(_text(value)), limit)

    if kind is QuestionKind.INPUT:
        asks = _asks(params.get("questions"), told)
        text = "\n".join(ask.text for ask in asks) or "a question without a text"
        return Question(kind=kind, text=text, asks=asks)
    if kind is QuestionKind.FORM:
        detail = params.get("url") or params.get("requestedSchema")
        text = told(params.get("message")) or "a form without a message"
        return Question(kind=kind, text=text, detail=told(detail, DETAIL_LIMIT))
    subject = _subject(kind, params, item)
    reason = told(params.get("reason") or params.get("message"))
    return Question(
        kind=kind,
        text=f"May it {_WANTED[kind]}?" + (f" {reason}" if reason else ""),
        detail=told(_shown(kind, subject), DETAIL_LIMIT),
        subject=_digest(kind, subject),
    )


def _asks(questions: object, told: Callable[..., str]) -> tuple[Ask, ...]:
    given = questions if isinstance(questions, list) else []
    asks = []
    for number, one in enumerate(given[:ASKS_LIMIT], start=1):
        if not isinstance(one, Mapping):
            continue
        options = one.get("options")
        asks.append(
            Ask(
                id=told(one.get("id"), LABEL_LIMIT) or f"q{number}",
                text=told(one.get("question")) or told(one.get("header")) or "?",
                header=told(one.get("header"), LABEL_LIMIT),
                options=tuple(
                    Option(
                        label=told(option["label"], LABEL_LIMIT),
                        description=told(option.get("description"), LABEL_LIMIT),
                    )
                    for option in (options if isinstance(options, list) else [])[:OPTIONS_LIMIT]
                    if isinstance(option, Mapping) and option.get("label")
                ),
                is_secret=one.get("isSecret") is True,
            )
        )
    return tuple(asks)


def _subject(kind: QuestionKind, params: Mapping[str, Any], item: Item | None) -> dict[str, Any]:
    """Return exactly what is to be approved; empty where the request does not tell."""
    item = item or {}
    match kind:
        case QuestionKind.COMMAND:
            found = {name: params.get(name) or item.get(name) for name in ("command", "cwd")}
            needed = found["command"]
        case QuestionKind.FILE_CHANGE:
            changes = params.get("fileChanges") or item.get("changes")
            found = {"changes": changes, "root": params.get("grantRoot")}
            needed = changes or params.get("grantRoot")
        case QuestionKind.TOOL:
            meta = params.get("_meta")
            meta = meta if isinstance(meta, Mapping) else {}
            found = {name: meta.get(name) for name in ("tool_name", "tool_params")}
            found["server"] = params.get("serverName")
            needed = found["tool_name"]
        case _:
            found = {"permissions": params.get("permissions")}
            needed = found["permissions"]
    return {name: value for name, value in found.items() if value} if needed else {}


def _shown(kind: QuestionKind, subject: Mapping[str, Any]) -> str:
    """Return it for people."""
    if kind is QuestionKind.COMMAND:
        command = subject.get("command", "")
        line = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        return line + (f"\nin {subject['cwd']}" if "cwd" in subject else "")
    if kind is QuestionKind.FILE_CHANGE:
        changes = subject.get("changes")
        if isinstance(changes, list):
            files = [one for one in changes if isinstance(one, Mapping)]
            return "\n".join(f"{one.get('path', '?')}\n{_text(one.get('diff'))}" for one in files)
    return _text(subject) if subject else ""


def _digest(kind: QuestionKind, subject: Mapping[str, Any]) -> str:
    if not subject:
        return ""
    exact = json.dumps([kind.value, subject], sort_keys=True, default=str)
    return hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _bounded(text: str, limit: int) -> str:
    # One look at the beginning is enough: a diff may be megabytes long.
    seen = text[: limit + 1].replace("\r\n", "\n")
    clean = "".join(char if char.isprintable() or char == "\n" else " " for char in seen).strip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
