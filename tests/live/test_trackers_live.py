"""Reads from real accounts, where the environment names one; nothing is ever changed.

``SYMPHONY_LIVE_<KIND>`` holds the section ``tracker`` as JSON, without ``kind``. Secrets stay in
the variables that the adapter looks up by itself, such as ``LINEAR_API_KEY``, or in those that
``$NAME`` references name. ``read_only`` is set whatever the section says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from symphony.config.settings import TrackerSettings
from symphony.model.issue import Issue, IssueId
from symphony.trackers import registry
from symphony.trackers.base import ChecksAtStart, Metered, ToolContext, Tracker

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

KINDS = ("linear", "github", "gitlab", "jira", "asana")
READS: dict[str, dict[str, Any]] = {
    "linear": {"query": "{ viewer { id } }"},
    "github": {"method": "GET", "path": "/repos/{repo}/labels"},
    "gitlab": {"method": "GET", "path": "/projects/{project}/labels"},
    "jira": {"method": "GET", "path": "/rest/api/3/myself"},
    "asana": {"method": "GET", "path": "/users/me"},
}
CHANGES: dict[str, dict[str, Any]] = {
    "linear": {"query": 'mutation { commentDelete(id: "none") { success } }'},
    **{
        kind: {"method": "DELETE", "path": READS[kind]["path"]}
        for kind in KINDS
        if kind != "linear"
    },
}


def build(kind: str) -> tuple[Tracker, TrackerSettings]:
    name = f"SYMPHONY_LIVE_{kind.upper()}"
    text = os.environ.get(name)
    if text is None:
        pytest.skip(f"{name} is not set: there is no account to read from")
    section = json.loads(text)
    provider = {**section.get("provider", {}), "read_only": True}
    settings = TrackerSettings.model_validate({**section, "kind": kind, "provider": provider})
    return registry.build(settings, os.environ, Path()), settings


def issue(name: str) -> Issue:
    return Issue(id=IssueId(name), identifier=name, title="None", state="None", dispatchable=False)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_account_is_read_as_its_fake_is(kind: str) -> None:
    tracker, settings = build(kind)
    try:
        if isinstance(tracker, ChecksAtStart):
            assert list(await tracker.faults_at_start()) == []
        issues = await tracker.fetch_issues_by_states(settings.active_states)
        assert {one.state_key for one in issues} <= settings.active_state_keys
        asked = [one.id for one in issues[:20]]
        again = await tracker.fetch_issues_by_ids(asked)
        assert [one.id for one in again] == asked
        assert isinstance(tracker, Metered)
        assert tracker.http.requests > 0
    finally:
        await tracker.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_tool_of_an_account_reads_and_refuses_to_change(kind: str) -> None:
    tracker, settings = build(kind)
    provider = settings.provider
    names = {
        "repo": provider.get("repo") or os.environ.get("GITHUB_REPO", ""),
        "project": str(provider.get("project_path", "")).replace("/", "%2F"),
    }
    context = ToolContext(issue=issue("LIVE-1"), run_id="live")
    (spec,) = tracker.agent_tools()
    try:
        for arguments, success in ((READS[kind], True), (CHANGES[kind], False)):
            path = {"path": arguments["path"].format(**names)} if "path" in arguments else {}
            result = await tracker.call_tool(spec.name, {**arguments, **path}, context)
            assert result.success is success, result.text
        assert "read_only" in result.text
    finally:
        await tracker.aclose()
