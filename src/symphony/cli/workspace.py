"""``symphony workspace``: what hooks of a workspace may call.

``before-remove`` is the counterpart of the reference's ``mix workspace.before_remove``: it closes
the pull requests of a branch that nobody will finish. Invariants: it never fails the hook for what
it meets, and neither git nor gh runs in the workspace, whose git metadata an agent has had in hand:
the branch is read from the file ``.git/HEAD``, and gh works from ``/``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

__all__ = ["app"]

app = cyclopts.App(name="workspace", help="Helpers for the hooks of a workspace.")

_GH_LIMIT_S = 30.0
_HEAD_PREFIX = "ref: refs/heads/"


@app.command(name="before-remove")
def before_remove(
    *,
    branch: Annotated[
        str | None, Parameter(help="The head branch; what is checked out here by default.")
    ] = None,
    repo: Annotated[
        str | None, Parameter(help="OWNER/NAME on GitHub; $GH_REPO by default.")
    ] = None,
) -> int:
    """Close the open pull requests of a workspace's branch; does nothing without gh."""
    head = (branch or _current_branch(Path.cwd()) or "").strip()
    where = (repo or os.environ.get("GH_REPO") or "").strip()
    gh = shutil.which("gh")
    if not head or not where or gh is None:
        return 0
    if _run(gh, "auth", "status")[0] != 0:
        return 0
    for number in _open_pull_requests(gh, where, head):
        _close(gh, where, head, number)
    return 0


def _open_pull_requests(gh: str, repo: str, branch: str) -> list[str]:
    status, output = _run(
        gh,
        "pr",
        "list",
        f"--repo={repo}",
        f"--head={branch}",
        "--state=open",
        "--json=number",
        "--jq=.[].number",
    )
    return [line for line in output.split() if line.isdecimal()] if status == 0 else []


def _close(gh: str, repo: str, branch: str, number: str) -> None:
    comment = (
        f"Closing because the tracker issue for branch {branch} entered a terminal state without"
        " merge."
    )
    status, output = _run(gh, "pr", "close", number, f"--repo={repo}", f"--comment={comment}")
    if status == 0:
        print(f"Closed PR #{number} for branch {branch}")
        return
    said = f" output={output.strip()!r}" if output.strip() else ""
    print(f"Failed to close PR #{number} for branch {branch}: exit {status}{said}", file=sys.stderr)


def _run(program: str, *arguments: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [program, *arguments],
            cwd="/",
            env={**os.environ, "GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_GH_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout


def _current_branch(start: Path) -> str | None:
    """Return what is checked out where ``start`` lies, read as a file; None for no branch."""
    for folder in (start, *start.parents):
        git_dir = folder / ".git"
        try:
            if git_dir.is_file():
                text = git_dir.read_text(encoding="utf-8", errors="replace")
                git_dir = folder / text.removeprefix("gitdir:").strip()
            elif not git_dir.is_dir():
                continue
            head = (git_dir / "HEAD").read_text(encoding="utf-8", errors="replace").strip()
        except (OSError, ValueError):
            return None
        name = head.removeprefix(_HEAD_PREFIX)
        return name if head.startswith(_HEAD_PREFIX) and name.isprintable() else None
    return None
