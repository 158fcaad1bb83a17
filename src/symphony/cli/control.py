"""``symphony pause``, ``resume``, ``drain``, ``stop``, ``retry``, ``answer`` and ``explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symphony.cli.status import give_order, request
from symphony.cli.usage import printable
from symphony.errors import UsageError

_SAID = {
    "pause": "paused: nothing new starts, what runs goes on",
    "resume": "resumed",
    "drain": "draining: nothing new starts, what runs ends after its turn",
    "stop": "stopping: agents are ended and their issues wait for 'symphony resume'",
    "retry": "retrying now",
    "unpark": "no longer parked: a usage limit that still holds will park it again",
    "answer": "answered: it goes on in its thread; where it is stopped, once it is resumed",
}


def order(
    action: str, issue: str | None, *, workflow: Path, reason: str, instance: str | None
) -> int:
    """Give an order and say what it does.

    Raises:
        ControlError: No daemon runs, or it refused.
    """
    body = {"action": action, "issue": issue, "reason": reason}
    return _give(body, workflow=workflow, instance=instance)


def answer(
    issue: str,
    text: str | None,
    *,
    options: Sequence[str],
    approve: bool,
    decline: bool,
    no_secret: bool,
    reason: str,
    workflow: Path,
    instance: str | None,
) -> int:
    """Answer what the agent of a blocked issue asked.

    Raises:
        ControlError: No daemon runs, or the answer does not fit.
        UsageError: It is both yes and no.
    """
    if approve and decline:
        raise UsageError("--approve and --decline exclude each other")
    decision = "approve" if approve else "decline" if decline else None
    body = {
        "action": "answer",
        "issue": issue,
        "text": text or "",
        "options": list(options),
        "decision": decision,
        "holds_no_secret": no_secret,
        "reason": reason,
    }
    return _give(body, workflow=workflow, instance=instance)


def _give(body: Mapping[str, Any], *, workflow: Path, instance: str | None) -> int:
    taken = give_order(workflow, body, instance=instance)
    print(printable(f"{taken.get('issue') or 'all work'}: {_said(body['action'], taken)}"))
    return 0


def _said(action: str, taken: Mapping[str, Any]) -> str:
    """Return what an order does, as far as it does it."""
    if action == "stop" and taken.get("claimed") is False:
        return f"nothing of it runs; it is held until 'symphony resume {taken['issue']}'"
    if action == "retry" and (waits_for := taken.get("waits_for")):
        return f"it may run now, but still waits: {waits_for}"
    return _SAID[action]


def explain(issue: str, *, workflow: Path, instance: str | None) -> int:
    """Print why an issue may start now or may not; return 0 where it may, else 1.

    Raises:
        ControlError: No daemon runs, or neither it nor the tracker knows the issue.
    """
    path = f"/api/v1/{quote(issue, safe='')}/explain"
    answer = request(workflow, "GET", path, instance=instance)
    for gate in answer["gates"]:
        state = "ok  " if gate["passed"] else "SHUT"
        print(printable(f"{state}  {gate['gate']:<16} {gate['detail']}"))
        if gate.get("lift"):
            print(printable(f"{'':<23}to open it: {gate['lift']}"))
    if answer["profile"] is not None:
        print(printable(f"profile {answer['profile']}"))
    if answer.get("slowed"):
        print(printable(f"Polls are slowed: {answer['slowed']}."))
    return 0 if answer["eligible"] else 1
