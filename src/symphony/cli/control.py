"""``symphony pause``, ``resume``, ``drain``, ``stop``, ``retry`` and ``explain``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from symphony.cli.status import request

_SAID = {
    "pause": "paused: nothing new starts, what runs goes on",
    "resume": "resumed",
    "drain": "draining: nothing new starts, what runs ends after its turn",
    "stop": "stopping: agents are ended and their issues wait for 'symphony resume'",
    "retry": "retrying now",
}


def order(
    action: str, issue: str | None, *, workflow: Path, reason: str, instance: str | None
) -> int:
    """Give an order and say what it does.

    Raises:
        ControlError: No daemon runs, or it refused.
    """
    body = {"action": action, "issue": issue, "reason": reason}
    request(workflow, "POST", "/api/v1/control", body=body, instance=instance)
    print(f"{issue or 'all work'}: {_SAID[action]}")
    return 0


def explain(issue: str, *, workflow: Path, instance: str | None) -> int:
    """Print why an issue may start now or may not; return 0 where it may, else 1.

    Raises:
        ControlError: No daemon runs, or the issue is not known to it.
    """
    path = f"/api/v1/{quote(issue, safe='')}/explain"
    answer = request(workflow, "GET", path, instance=instance)
    for gate in answer["gates"]:
        print(f"{'ok  ' if gate['passed'] else 'SHUT'}  {gate['gate']:<16} {gate['detail']}")
    if answer["profile"] is not None:
        print(f"profile {answer['profile']}")
    return 0 if answer["eligible"] else 1
