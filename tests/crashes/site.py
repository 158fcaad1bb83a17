"""A sample to be crashed on: repository, board, workflow, and a model whose work bears repetition.

Invariant: whoever reads the board and the repository at the end can tell whether anything happened
twice. The model looks before it comments and commits only what is not committed, so a second
comment or commit can only come from two agents at once, or from an agent whose work was lost.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_app_server.home import provider_config, write_config

from symphony.config.state_dir import StateDir, locate
from symphony.demo.conversation import Conversation
from symphony.demo.project import branch_of, create_repository
from symphony.demo.script import Exec, IssueScript, Say, Script, Tool, turn
from symphony.demo.story import MODEL, PROVIDER
from symphony.trackers.local_board import Board

PREFIX = "CR"
REPORT = "The file of this issue is committed."
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Site:
    """Where the parts of a round lie.

    Attributes:
        instance: The marker of its processes (``SYMPHONY_INSTANCE``), unique to the round.
        environ: For the daemon: an empty HOME, places of its own.
    """

    root: Path
    instance: str
    board: Board
    identifiers: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def repo(self) -> Path:
        return self.root / "repo"

    @property
    def workflow(self) -> Path:
        return self.root / "WORKFLOW.md"

    @property
    def workspaces(self) -> Path:
        return self.root / "workspaces"

    @property
    def log(self) -> Path:
        return self.root / "stderr.txt"

    @property
    def state_dir(self) -> StateDir:
        return locate(self.workflow, instance=self.instance, env=self.environ)


def make_site(root: Path, *, instance: str, issues: int, codex: Path, base_url: str) -> Site:
    """Make everything in an empty directory outside of the temp directory."""
    create_repository(root / "repo")
    board = Board.create(root / "board", prefix=PREFIX)
    identifiers = tuple(f"{PREFIX}-{number}" for number in range(1, issues + 1))
    for identifier in identifiers:
        board.add(f"Write the file of {identifier}", identifier=identifier, state="Todo")
    home, login = root / "home", root / "login"
    home.mkdir()
    login.mkdir(mode=0o700)
    write_config(login, provider_config(base_url, model=MODEL, provider=PROVIDER))
    environ = {
        "PATH": f"{codex.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "CODEX_HOME": str(login),
        "LANG": "C.UTF-8",
        "XDG_STATE_HOME": str(root / "state"),
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    site = Site(root, instance, board, identifiers, environ)
    site.workflow.write_text(_workflow(site, codex), "utf-8")
    return site


def script(identifiers: tuple[str, ...]) -> Script:
    """Return what the model does for each issue."""
    return Script(
        issues={name: IssueScript((turn(*_steps(name)),)) for name in identifiers},
        pause_s=PAUSE_S,
    )


def _steps(name: str) -> tuple[Exec | Tool | Say, ...]:
    branch, message = branch_of(name), shlex.quote(f"{name}: Write its file")
    return (
        Tool("local_board", {"action": "move", "state": "In Progress"}),
        Exec(f"git switch -q {branch} 2>/dev/null || git switch -q -c {branch}"),
        # Long enough that a kill often meets an agent with a child of its own.
        Exec(f"sleep 0.3; echo {name} > {name}.txt"),
        Exec(f"git add -A && {{ git diff --cached --quiet || git commit -q -m {message}; }}"),
        Tool("local_board", {"action": "get"}),
        Tool("local_board", _report_once),
        Tool("local_board", {"action": "move", "state": "Done"}),
        Say("It is done."),
    )


def _report_once(conversation: Conversation) -> Mapping[str, Any]:
    """Comment, unless what the model has just read has its comment already."""
    if REPORT in conversation.outputs[-1]:
        return {"action": "get"}
    return {"action": "comment", "text": REPORT}


def _workflow(site: Site, codex: Path) -> str:
    repo = shlex.quote(str(site.repo))
    ref = f"refs/heads/{branch_of('$SYMPHONY_ISSUE_IDENTIFIER')}"
    publish = (
        f'git -C {repo} rev-parse -q --verify "{ref}" >/dev/null || '
        f'git -C {repo} fetch -q --no-write-fetch-head "$PWD" "{ref}:{ref}"'
    )
    front = {
        "tracker": {"kind": "local", "provider": {"path": "board", "prefix": PREFIX}},
        "polling": {"interval_ms": 300},
        "workspace": {"root": "workspaces"},
        "hooks": {
            "after_create": f"git clone -q {repo} . && git config user.name A"
            " && git config user.email a@symphony.invalid",
            "after_run": publish,
            # A daemon that is killed between the agent's end and after_run never gets to that.
            "before_remove": publish,
        },
        "agent": {"max_concurrent_agents": 3, "max_retry_backoff_ms": 300},
        # Agents that are killed one after the other open it; it is to try again within the round.
        "breaker": {"cooldown_ms": 1000, "max_cooldown_ms": 2000},
        "codex": {"command": f"{shlex.quote(str(codex))} app-server"},
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    prompt = (
        "Issue: {{ issue.identifier }}",
        "{% if attempt %}Attempt: {{ attempt }}{% endif %}",
        "",
    )
    return "\n".join(["---", *lines, "---", *prompt])
