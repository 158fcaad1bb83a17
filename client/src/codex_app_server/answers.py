"""A handler's own reply to the server, checked: one that the server cannot read hangs its turn.

Invariant: members that a later server may know pass; a known one of the wrong type or value is
refused by its name. `codex_app_server.approvals` calls these where a handler returns a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codex_app_server.checks import shown
from codex_app_server.errors import InvalidArgument

__all__ = [
    "elicitation_reply",
    "legacy_reply",
    "permissions_reply",
    "questions_reply",
    "without_nulls",
]

_SCOPES = ("turn", "session")
_ACTIONS = ("accept", "decline", "cancel")
_REVIEWS = ("approved", "approved_for_session", "denied", "timed_out", "abort")
_OF_LATER = {
    "accept": "approved",
    "acceptForSession": "approved_for_session",
    "decline": "denied",
    "cancel": "abort",
}


def permissions_reply(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"permissions": {...}, "scope": ...}``; without a scope it is for the turn.

    Raises:
        InvalidArgument: No mapping of permissions, or another scope.
    """
    granted, scope = answer.get("permissions"), answer.get("scope")
    if not isinstance(granted, Mapping):
        raise InvalidArgument(
            f"permissions={shown(granted)}: return a mapping such as "
            "{'permissions': {'network': {'enabled': True}}, 'scope': 'turn'}; {} grants nothing"
        )
    if scope is not None and scope not in _SCOPES:
        raise InvalidArgument(f"scope={shown(scope)}: use {', '.join(_SCOPES)}")
    return {**answer, "permissions": without_nulls(granted), "scope": scope or "turn"}


def without_nulls(asked: object) -> dict[str, Any]:
    """Return permissions without members of None: the server reads them as absent anyway."""
    if not isinstance(asked, Mapping):
        return {}
    return {key: value for key, value in asked.items() if value is not None}


def elicitation_reply(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"action": ..., "content": ...}``.

    Raises:
        InvalidArgument: Another action.
    """
    action = answer.get("action")
    if action not in _ACTIONS:
        raise InvalidArgument(f"action={shown(action)}: use {', '.join(_ACTIONS)}")
    return dict(answer)


def questions_reply(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"answers": {question: {"answers": [text]}}}``.

    Given so, or shorter: each question's id with its text or texts.

    Raises:
        InvalidArgument: An answer that is no text.
    """
    answers = answer.get("answers")
    if isinstance(answers, Mapping):
        return {**answer, "answers": {name: _texts(name, one) for name, one in answers.items()}}
    return {"answers": {name: _texts(name, one) for name, one in answer.items()}}


def _texts(question: str, given: Any) -> dict[str, Any]:
    members = dict(given) if isinstance(given, Mapping) else {"answers": given}
    texts = members.get("answers")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise InvalidArgument(
            f"answer to {question!r}={shown(given)}: give a text, or a list of them"
        )
    return {**members, "answers": list(texts)}


def legacy_reply(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply to an approval of the first protocol; the later one's words are translated.

    Raises:
        InvalidArgument: A decision that it does not know.
    """
    decision = answer.get("decision")
    if isinstance(decision, str):
        decision = _OF_LATER.get(decision, decision)
    if not isinstance(decision, Mapping) and decision not in _REVIEWS:
        raise InvalidArgument(f"decision={shown(decision)}: use {', '.join(_REVIEWS)}")
    return {**answer, "decision": decision}
