"""The whole story on the real binary, with a loop of a few lines in place of the daemon."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from symphony.config.loading import load_workflow
from symphony.demo.model_server import ModelServer
from symphony.demo.project import branches_beyond_main
from symphony.demo.repository import DemoSample, add_sixth_issue, make_sample, verify
from symphony.demo.story import demo_script
from symphony.model.issue import Issue
from symphony.trackers.base import ToolContext
from symphony.trackers.registry import PROFILES, build

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]

MAX_RUNS = 12


class Loop:
    """Works off a sample board one issue after the other."""

    def __init__(self, sample: DemoSample, start: Any, base_url: str) -> None:
        self.sample = sample
        self.start = start
        self.base_url = base_url
        self.runs: list[tuple[str, list[str]]] = []
        settings = load_workflow(sample.workflow_path, environ={}, profiles=PROFILES).settings
        self.hooks = settings.hooks
        self.active = settings.tracker.active_states
        self.tracker = build(settings.tracker, {}, sample.root)

    async def run(self) -> None:
        for _ in range(MAX_RUNS):
            issues = await self.tracker.fetch_issues_by_states(self.active)
            ready = [issue for issue in issues if issue.dispatchable]
            if not ready:
                return
            tried = [identifier for identifier, _ in self.runs]
            issue = min(ready, key=lambda one: (tried.count(one.identifier), one.priority or 9))
            await self.run_issue(issue, attempt=tried.count(issue.identifier))

    async def run_issue(self, issue: Issue, attempt: int) -> None:
        workspace = self.sample.workspace_root / issue.identifier
        if not workspace.exists():
            workspace.mkdir(parents=True)
            await self.hook(self.hooks.after_create, workspace, issue)
        number = f"\nAttempt: {attempt}" if attempt else ""
        statuses = await self.session(issue, workspace, f"Issue: {issue.identifier}{number}")
        self.runs.append((issue.identifier, statuses))
        await self.hook(self.hooks.after_run, workspace, issue)
        (now,) = await self.tracker.fetch_issues_by_ids([issue.id])
        if now.state == "Done":
            await asyncio.to_thread(subprocess.run, ["rm", "-rf", workspace], check=True)

    async def session(self, issue: Issue, workspace: Path, prompt: str) -> list[str]:
        async def on_tool(params: dict[str, Any]) -> dict[str, Any]:
            context = ToolContext(issue, "run-1")
            result = await self.tracker.call_tool(params["tool"], params["arguments"], context)
            text = [{"type": "inputText", "text": result.text}]
            return {"success": result.success, "contentItems": text}

        roots = [str(workspace), str(workspace / ".git")]
        policy = {
            "type": "workspaceWrite",
            "writableRoots": roots,
            "networkAccess": False,
            "excludeSlashTmp": True,
            "excludeTmpdirEnvVar": True,
        }
        tools = [
            {"name": one.name, "description": one.description, "inputSchema": one.input_schema}
            for one in self.tracker.agent_tools()
        ]
        statuses: list[str] = []
        async with self.start(self.base_url, on_tool) as codex:
            thread = await codex.start_thread(workspace, tools)
            while not statuses or statuses[-1] == "completed":
                text = "Go on." if statuses else prompt
                ended = await codex.run_turn(thread, text, sandboxPolicy=policy)
                statuses.append(ended["status"])
                (now,) = await self.tracker.fetch_issues_by_ids([issue.id])
                if now.state == "Done":
                    break
        return statuses

    async def hook(self, script: str | None, workspace: Path, issue: Issue) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.sample.root),
            "SYMPHONY_ISSUE_IDENTIFIER": issue.identifier,
        }
        command = ["bash", "-c", script or ""]
        await asyncio.to_thread(subprocess.run, command, cwd=workspace, env=environment, check=True)


async def test_every_issue_reaches_its_state_with_a_commit_that_outlives_its_workspace(
    app_server: Any, cache_folder: Path
):
    sample = await asyncio.to_thread(make_sample, cache_folder / "demo")
    await asyncio.to_thread(add_sixth_issue, sample)
    async with ModelServer(demo_script(pause_s=0.0), keep=1000) as model:
        loop = Loop(sample, app_server, await model.start())
        await loop.run()
    reports = await asyncio.to_thread(verify, sample)
    assert [(report.identifier, report.problem) for report in reports] == [
        (f"DEMO-{number}", None) for number in range(1, 7)
    ]
    ran = dict(loop.runs)
    assert [name for name, _ in loop.runs].index("DEMO-1") < list(ran).index("DEMO-3")
    assert sorted(name for name, _ in loop.runs) == sorted([*ran, "DEMO-2"])
    assert [statuses for name, statuses in loop.runs if name == "DEMO-2"] == [
        ["failed"],
        ["completed"],
    ]
    assert ran["DEMO-4"] == ["completed", "completed"]
    branches = await asyncio.to_thread(branches_beyond_main, sample.repo)
    assert [commit.subject for commit in branches["symphony/DEMO-4"]] == [
        "DEMO-4: Write a manual",
        "DEMO-4: Begin",
    ]
    outputs = "".join("".join(request.conversation.outputs) for request in model.requests)
    assert "OK" in outputs
    assert "Traceback" not in outputs
    assert "fatal:" not in outputs
