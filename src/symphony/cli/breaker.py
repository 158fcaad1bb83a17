"""``symphony breaker reset``: close the failure breaker of a running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from symphony.cli.status import give_order
from symphony.errors import UsageError
from symphony.model.failure import FailureClass

app = cyclopts.App(name="breaker", help="Look after the failure breaker of a running daemon.")


@app.command
def reset(
    failure_class: Annotated[
        str | None, Parameter(help="Class of failures, as it is shown; all without it.")
    ] = None,
    /,
    *,
    reason: Annotated[str, Parameter(help="For the log.")] = "",
    workflow: Annotated[
        Path,
        Parameter(name=("--workflow", "-w"), help="Whose daemon: the path of its workflow file."),
    ] = Path("WORKFLOW.md"),
    instance: Annotated[str | None, Parameter(help="Name of the state directory.")] = None,
) -> int:
    """Close the breaker and forget what it counted: work starts again."""
    known = sorted(FailureClass)
    if failure_class is not None and failure_class not in known:
        raise UsageError(f"no class of failures {failure_class!r}; one of {', '.join(known)}")
    body = {"action": "reset_breaker", "failure_class": failure_class, "reason": reason}
    give_order(workflow, body, instance=instance)
    print(f"{failure_class or 'all classes'}: the breaker is closed and its count begins anew")
    return 0
