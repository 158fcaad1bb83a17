"""``symphony issue``: what people do to a local board from a shell.

The board is that of the workflow file, or the folder given by ``--board``. No daemon is needed,
and a running one sees every change. Errors are ``SymphonyError``, printed by ``main``; the board
itself is ``trackers.local_board``.
"""

from __future__ import annotations

import json as json_format
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from symphony.cli.usage import Whole, printable

if TYPE_CHECKING:
    from symphony.trackers.local_board import Board
    from symphony.trackers.local_document import IssueDocument

__all__ = ["app"]

app = cyclopts.App(
    name="issue", help="Add, list, show, move, comment and edit the issues of a local board."
)


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Which board."""

    board: Annotated[
        Path | None, Parameter(help="The board's folder, instead of the workflow file's.")
    ] = None
    workflow: Annotated[Path, Parameter(help="The workflow file that names the board.")] = Path(
        "WORKFLOW.md"
    )


HERE = Where()

Identifier = Annotated[str, Parameter(help="The issue, for example DEMO-7.")]
State = Annotated[str | None, Parameter(help="Any name; Todo and In Progress are worked on.")]
Description = Annotated[
    str | None,
    Parameter(help="Markdown; `-` reads it from standard input.", allow_leading_hyphen=True),
]
Priority = Annotated[Whole | None, Parameter(help="1 is the most urgent, 4 the least.")]
Assignee = Annotated[str | None, Parameter(help="Any name.")]
Labels = Annotated[
    list[str] | None, Parameter(name="--label", negative=(), help="A label; may be repeated.")
]
BlockedBy = Annotated[
    list[str] | None,
    Parameter(
        name="--blocked-by", negative=(), help="An issue that must be finished first; repeatable."
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


@app.command
def add(
    title: Annotated[str, Parameter(help="One line.")],
    /,
    *,
    description: Description = None,
    state: State = None,
    priority: Priority = None,
    labels: Labels = None,
    blocked_by: BlockedBy = None,
    assignee: Assignee = None,
    identifier: Annotated[
        str | None, Parameter(name="--id", help="The identifier; by default the next number.")
    ] = None,
    where: Where = HERE,
) -> int:
    """Put a new issue on the board; makes the folder if there is none."""
    from symphony.trackers.local_board import DEFAULT_STATE, Board

    board = _board(where)
    Board.create(board.path)
    issue = board.add(
        title,
        description=_text(description) or "",
        state=state if state is not None else DEFAULT_STATE,
        priority=priority,
        labels=labels or (),
        blocked_by=blocked_by or (),
        assignee=assignee,
        identifier=identifier,
    )
    print(f"added {_line(issue)} ({board.path / issue.identifier}.md)")
    return 0


@app.command(name="list")
def list_(
    *,
    states: Annotated[
        list[str] | None,
        Parameter(name="--state", negative=(), help="Only issues in this state; repeatable."),
    ] = None,
    as_json: AsJson = False,
    where: Where = HERE,
) -> int:
    """List the issues; exits with 1 where a file of the board is malformed."""
    from symphony.model.issue import normalize_state

    view = _board(where).read()
    wanted = {normalize_state(state) for state in states or ()}
    found = [i for i in view.issues if not wanted or normalize_state(i.state) in wanted]
    if as_json:
        _print_json([_fields(issue) for issue in found])
    else:
        width = max((len(issue.identifier) for issue in found), default=0)
        column = max((len(issue.state) for issue in found), default=0)
        for issue in found:
            priority = issue.priority if issue.priority is not None else "-"
            head = f"{issue.identifier:<{width}}  {issue.state:<{column}}  {priority}"
            print(printable(f"{head}  {' '.join(issue.title.split())}"))
    for notice in view.notices:
        print(printable(f"warning: {notice}"), file=sys.stderr)
    for fault in view.malformed:
        print(printable(f"error: {fault}"), file=sys.stderr)
    return 1 if view.malformed else 0


@app.command
def show(identifier: Identifier, /, *, as_json: AsJson = False, where: Where = HERE) -> int:
    """Show one issue with its comments."""
    board = _board(where)
    issue, comments = board.get(identifier), board.comments(identifier)
    if as_json:
        entries = [{"at": c.at, "author": c.author, "text": c.text} for c in comments]
        _print_json({**_fields(issue), "description": issue.description, "comments": entries})
        return 0
    print(_line(issue))
    for name, value in (
        ("id", issue.id if issue.id != issue.identifier else None),
        ("priority", issue.priority),
        ("labels", ", ".join(issue.labels)),
        ("blocked by", ", ".join(issue.blocked_by or ())),
        ("assignee", issue.assignee),
        ("updated", issue.updated_at),
    ):
        if value not in (None, ""):
            print(printable(f"{name}: {value}"))
    if issue.description:
        print("\n" + printable(issue.description))
    for comment in comments:
        print("\n" + printable(f"{comment.at}  {comment.author}\n{comment.text}"))
    return 0


@app.command
def move(
    identifier: Identifier,
    state: Annotated[str, Parameter(help="The new state, any name.")],
    /,
    *,
    where: Where = HERE,
) -> int:
    """Move an issue to another state."""
    print(f"moved {_line(_board(where).move(identifier, state))}")
    return 0


@app.command
def comment(
    identifier: Identifier,
    text: Annotated[
        str,
        Parameter(help="Markdown; `-` reads it from standard input.", allow_leading_hyphen=True),
    ],
    /,
    *,
    author: Annotated[str | None, Parameter(help="By default your login name.")] = None,
    where: Where = HERE,
) -> int:
    """Append a comment to an issue."""
    issue = _board(where).comment(identifier, _text(text) or "", author=author or _login())
    print(f"commented on {_line(issue)}")
    return 0


@app.command
def edit(
    identifier: Identifier,
    /,
    *,
    title: Annotated[str | None, Parameter(help="One line.")] = None,
    description: Description = None,
    state: State = None,
    priority: Priority = None,
    labels: Labels = None,
    blocked_by: BlockedBy = None,
    assignee: Assignee = None,
    clear: Annotated[
        list[Literal["priority", "labels", "blocked_by", "assignee"]] | None,
        Parameter(negative=(), help="Take this key out; may be repeated."),
    ] = None,
    where: Where = HERE,
) -> int:
    """Change an issue; without options, open its file in your editor."""
    given: dict[str, Any] = {
        "title": title,
        "state": state,
        "priority": priority,
        "labels": labels,
        "blocked_by": blocked_by,
        "assignee": assignee,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    changes.update(dict.fromkeys(clear or ()))
    board = _board(where)
    if not changes and description is None:
        return _open_editor(board, identifier)
    issue = board.edit(identifier, description=_text(description), **changes)
    print(f"changed {_line(issue)}")
    return 0


def _board(where: Where) -> Board:
    """Open the board that the options name.

    Raises:
        SymphonyError: The workflow file is broken, or its tracker is no local board.
    """
    from symphony.errors import ControlError
    from symphony.trackers.local_board import Board, open_board

    if where.board is not None:
        return Board(where.board.expanduser().absolute())
    path = where.workflow.expanduser().absolute()
    if not path.exists() and where.workflow == HERE.workflow:
        return open_board({}, path.parent)
    tracker = _tracker_of(path)
    kind, provider = tracker.get("kind"), tracker.get("provider")
    if kind != "local":
        raise ControlError(
            "invalid_tracker_config",
            f"{path}: its tracker is `{kind}`, and `symphony issue` works on `local` boards; "
            "name a board with --board",
        )
    return open_board(provider if isinstance(provider, dict) else {}, path.parent)


def _tracker_of(path: Path) -> dict[str, Any]:
    """Read ``tracker`` alone, so that a fault elsewhere in the file keeps no issue from you."""
    from symphony.config.front_matter import parse_front_matter, split_document
    from symphony.errors import WorkflowFileError

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowFileError(
            "missing_workflow_file", f"{path}: the workflow file can't be read ({error})"
        ) from error
    values = parse_front_matter(split_document(text).front_matter or "", source=str(path)).values
    tracker = values.get("tracker")
    return dict(tracker) if isinstance(tracker, dict) else {}


def _open_editor(board: Board, identifier: str) -> int:
    import shlex
    import subprocess

    from symphony.errors import ControlError

    view = board.read()
    fault = view.malformed_ids.get(identifier)
    # A malformed file is what somebody wants to mend.
    path = fault.path if fault else board.path / f"{board.get(identifier).identifier}.md"
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise ControlError(
            "control_request_failed",
            f"the editor `{editor}` can't be started ({error}); set EDITOR",
        ) from error
    left = [entry for entry in board.read().malformed if entry.path == path]
    for entry in left:
        print(printable(f"error: {entry}"), file=sys.stderr)
    return status or (1 if left else 0)


def _text(value: str | None) -> str | None:
    return sys.stdin.read() if value == "-" else value


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _line(issue: IssueDocument) -> str:
    return printable(f"{issue.identifier} [{issue.state}] {' '.join(issue.title.split())}")


def _fields(issue: IssueDocument) -> dict[str, Any]:
    return {
        "id": issue.id,
        "identifier": issue.identifier,
        "title": issue.title,
        "state": issue.state,
        "priority": issue.priority,
        "labels": list(issue.labels),
        "blocked_by": list(issue.blocked_by or ()),
        "assignee": issue.assignee,
        "created": issue.created_at.isoformat() if issue.created_at else None,
        "updated": issue.updated_at.isoformat() if issue.updated_at else None,
    }


def _print_json(value: Any) -> None:
    print(json_format.dumps(value, indent=2, ensure_ascii=False))
