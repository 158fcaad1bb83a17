"""The application: which commands there are and what they take; each is a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from symphony.cli.usage import Whole, told
from symphony.errors import UsageError

WorkflowPath = Annotated[
    Path, Parameter(help="The workflow file; relative paths in it start at its directory.")
]
Port = Annotated[
    Whole | None,
    Parameter(help="Serve the dashboard and the API on this TCP port too; 0 takes a free one."),
]
LogsRoot = Annotated[Path | None, Parameter(help="Write log/symphony.log below this directory.")]
Instance = Annotated[
    str | None, Parameter(help="Name of the state directory instead of one made of the path.")
]
DEFAULT_WORKFLOW = Path("WORKFLOW.md")
ACKNOWLEDGEMENT = "--i-understand-that-this-will-be-running-without-the-usual-guardrails"

_GROUPS = {
    "db": "Check, export or prune a daemon's ledger.",
}
"""Commands with commands below them, each a module that is imported when it is called."""


def make_app() -> cyclopts.App:
    """Return the application."""
    app = cyclopts.App(
        name="symphony",
        help="Turn the issues of your tracker into finished work by driving Codex.",
        version=_version,
        help_format="plaintext",
        error_formatter=told,
    )
    app.default(run)
    app.command(run, name="run")
    app.command(init, name="init")
    app.command(check, name="check")
    app.command(status, name="status")
    app.command(demo, name="demo")
    app.command(pause, name="pause")
    app.command(resume, name="resume")
    app.command(drain, name="drain")
    app.command(stop, name="stop")
    app.command(retry, name="retry")
    app.command(answer, name="answer")
    app.command(explain, name="explain")
    for name, text in _GROUPS.items():
        app.command(f"symphony.cli.{name}:app", name=name, help=text)
    app.command(
        "symphony.cli.breaker:app",
        name="breaker",
        help="Look after the failure breaker of a running daemon.",
    )
    app.command(
        "symphony.cli.budget:app",
        name="budget",
        help="Show what work has cost and its limits, or grant more.",
    )
    app.command(
        "symphony.cli.hours:app",
        name="hours",
        help="Look after the active hours of a running daemon.",
    )
    app.command(
        "symphony.cli.issue:app",
        name="issue",
        help="Add, list, show, move, comment and edit the issues of a local board.",
    )
    app.command(
        "symphony.cli.tracker:app", name="tracker", help="Try the tracker that a workflow names."
    )
    app.command(
        "symphony.cli.workspace:app", name="workspace", help="Helpers for the hooks of a workspace."
    )
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("symphony-orchestrator")


def run(
    workflow: WorkflowPath = DEFAULT_WORKFLOW,
    /,
    *,
    port: Port = None,
    logs_root: LogsRoot = None,
    instance: Instance = None,
    acknowledged: Annotated[
        bool,
        Parameter(
            name=ACKNOWLEDGEMENT,
            negative=(),
            help="Accepted for compatibility with the reference; it changes nothing.",
        ),
    ] = False,
) -> int:
    """Run the daemon of a workflow until it is stopped."""
    from symphony.cli.run import run_daemon

    return run_daemon(workflow, port=port, logs_root=logs_root, instance=instance)


def init(
    directory: Annotated[Path, Parameter(help="Where WORKFLOW.md and the board go.")] = Path("."),
    /,
    *,
    repository: Annotated[
        str | None,
        Parameter(help="What each workspace is cloned from; the repository you are in by default."),
    ] = None,
) -> int:
    """Write a WORKFLOW.md and an empty board to start from."""
    from symphony.cli.init import write_start

    return write_start(directory, repository=repository)


def check(workflow: WorkflowPath = DEFAULT_WORKFLOW, /) -> int:
    """Check a workflow file, its prompt and its tracker's settings; start nothing."""
    from symphony.cli.check import check_workflow

    return check_workflow(workflow)


def status(
    workflow: WorkflowPath = DEFAULT_WORKFLOW,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print the API's answer as it is.", negative=())] = False,
    instance: Instance = None,
) -> int:
    """Show what the daemon of a workflow is doing."""
    from symphony.cli.status import show_status

    return show_status(workflow, as_json=json, instance=instance)


IssueName = Annotated[str | None, Parameter(help="Identifier of one issue; all work without it.")]
OfWorkflow = Annotated[
    Path, Parameter(name=("--workflow", "-w"), help="Whose daemon: the path of its workflow file.")
]
Reason = Annotated[str, Parameter(help="For the log, the view and whoever asks why.")]


def pause(
    issue: IssueName = None,
    /,
    *,
    reason: Reason = "",
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """Start nothing new, of all work or of one issue; what runs goes on."""
    return _order("pause", issue, reason, workflow, instance)


def resume(
    issue: IssueName = None,
    /,
    *,
    park: Annotated[
        bool, Parameter(help="Lift the wait for a usage limit's reset instead.", negative=())
    ] = False,
    reason: Reason = "",
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """Lift a pause or drain; what was stopped runs again."""
    if park and issue is not None:
        raise UsageError(f"--park is for all work; to try one issue: symphony retry {issue}")
    return _order("unpark" if park else "resume", issue, reason, workflow, instance)


def drain(
    *, reason: Reason = "", workflow: OfWorkflow = DEFAULT_WORKFLOW, instance: Instance = None
) -> int:
    """Start nothing new and let what runs end after its present turn."""
    return _order("drain", None, reason, workflow, instance)


def stop(
    issue: IssueName = None,
    /,
    *,
    reason: Reason = "",
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """End agents now; their issues wait until they are resumed."""
    return _order("stop", issue, reason, workflow, instance)


def retry(
    issue: IssueName = None,
    /,
    *,
    reason: Reason = "",
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """Run what waits for a retry or is blocked now."""
    return _order("retry", issue, reason, workflow, instance)


def answer(
    issue: Annotated[str, Parameter(help="Identifier of the blocked issue.")],
    text: Annotated[str | None, Parameter(help="The answer, in your own words.")] = None,
    /,
    *,
    option: Annotated[
        tuple[str, ...],
        Parameter(
            help="One of the proposed answers: its label or number, or ID=LABEL.", negative=()
        ),
    ] = (),
    approve: Annotated[bool, Parameter(help="Approve what was asked, once.", negative=())] = False,
    decline: Annotated[bool, Parameter(help="Refuse what was asked.", negative=())] = False,
    no_secret: Annotated[
        bool,
        Parameter(
            help="The text holds no secret, though one was asked for: it says where to find it.",
            negative=(),
        ),
    ] = False,
    reason: Reason = "",
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """Answer what the agent of a blocked issue asked; the issue goes on at once."""
    from symphony.cli.control import answer as give_answer

    return give_answer(
        issue,
        text,
        options=option,
        approve=approve,
        decline=decline,
        no_secret=no_secret,
        reason=reason,
        workflow=workflow,
        instance=instance,
    )


def _order(
    action: str, issue: str | None, reason: str, workflow: Path, instance: str | None
) -> int:
    from symphony.cli.control import order

    return order(action, issue, workflow=workflow, reason=reason, instance=instance)


def explain(
    issue: Annotated[str, Parameter(help="Identifier of the issue.")],
    /,
    *,
    workflow: OfWorkflow = DEFAULT_WORKFLOW,
    instance: Instance = None,
) -> int:
    """Say whether an issue may start now and, if not, why: every condition in order."""
    from symphony.cli.control import explain as explain_issue

    return explain_issue(issue, workflow=workflow, instance=instance)


def demo(
    *,
    keep: Annotated[
        bool, Parameter(help="Leave the board, the repository and the logs.", negative=())
    ] = False,
    live: Annotated[
        bool,
        Parameter(help="Use your own Codex login and model instead of the script.", negative=()),
    ] = False,
    codex: Annotated[
        Path | None, Parameter(help="The codex binary; found by itself otherwise.")
    ] = None,
    port: Annotated[Whole, Parameter(help="Port of the dashboard; 0 takes a free one.")] = 0,
) -> int:
    """Show the whole way on a sample board: real Codex, scripted model, no account, no network."""
    from symphony.demo.run import run_demo

    return run_demo(keep=keep, live=live, codex=codex, port=port)
