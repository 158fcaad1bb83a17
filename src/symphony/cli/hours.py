"""``symphony hours override``: let work start outside the active hours for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from symphony.cli.status import give_order
from symphony.cli.usage import Whole
from symphony.errors import UsageError

_MONTH_MIN = 31 * 24 * 60

app = cyclopts.App(name="hours", help="Look after the active hours of a running daemon.")


@app.command
def override(
    *,
    minutes: Annotated[Whole, Parameter(help="For how long; 0 ends an override.")] = 60,
    reason: Annotated[str, Parameter(help="For the log.")] = "",
    workflow: Annotated[
        Path,
        Parameter(name=("--workflow", "-w"), help="Whose daemon: the path of its workflow file."),
    ] = Path("WORKFLOW.md"),
    instance: Annotated[str | None, Parameter(help="Name of the state directory.")] = None,
) -> int:
    """Let work start in spite of agent.active_hours, over restarts too, until the time is up."""
    if not 0 <= minutes <= _MONTH_MIN:
        raise UsageError(
            f"--minutes {minutes}: give 0 to {_MONTH_MIN} (31 days); for longer, edit "
            "agent.active_hours"
        )
    body = {"action": "override_hours", "for_seconds": minutes * 60.0, "reason": reason}
    give_order(workflow, body, instance=instance)
    said = f"lifted for {minutes} minutes" if minutes else "in force again"
    print(f"active hours: {said}")
    return 0
