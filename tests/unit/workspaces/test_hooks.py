"""What a hook is told, what is kept from it, and what its end means."""

from __future__ import annotations

import logging

import pytest

from symphony.config.settings import HookSettings
from symphony.errors import HookError
from symphony.hosts.base import CompletedCommand, ExitStatus, HostProcess, ProcessSpec
from symphony.model.issue import Issue, IssueId
from symphony.workspaces.hooks import Hook, HookCall, hook_environment, run_hook

ISSUE = Issue(
    id=IssueId("id-1"),
    identifier="MT-1",
    title="Mend $(rm -rf /)\0 it",
    state="Todo",
    dispatchable=True,
)


class ScriptedHost:
    """Answers each command with the next completed one and keeps what it was asked."""

    name = "scripted"

    def __init__(self, *answers: CompletedCommand) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[ProcessSpec, float, int]] = []

    async def start(self, spec: ProcessSpec) -> HostProcess:
        raise AssertionError("hooks are commands, not processes")

    async def run(
        self, spec: ProcessSpec, *, timeout_s: float, output_cap: int = 65536
    ) -> CompletedCommand:
        self.asked.append((spec, timeout_s, output_cap))
        return self.answers.pop(0)

    async def aclose(self) -> None:
        pass


def call(hook: Hook = Hook.BEFORE_RUN, attempt: int | None = 2) -> HookCall:
    return HookCall(hook=hook, issue=ISSUE, workspace="/w/MT-1", run_id="run-1", attempt=attempt)


async def run(host: ScriptedHost, settings: HookSettings, hook: Hook = Hook.BEFORE_RUN) -> None:
    environ = {"PATH": "/bin", "TOKEN": "s3cret"}
    await run_hook(call(hook), settings, host=host, environ=environ, secret_names=["TOKEN"])


def test_a_hook_is_told_its_issue_and_not_the_trackers_secrets():
    env = hook_environment({"PATH": "/bin", "TOKEN": "s3cret"}, call(), secret_names=["TOKEN"])
    assert env == {
        "PATH": "/bin",
        "SYMPHONY_HOOK": "before_run",
        "SYMPHONY_ISSUE_ID": "id-1",
        "SYMPHONY_ISSUE_IDENTIFIER": "MT-1",
        "SYMPHONY_ISSUE_TITLE": "Mend $(rm -rf /) it",
        "SYMPHONY_ISSUE_STATE": "Todo",
        "SYMPHONY_ATTEMPT": "2",
        "SYMPHONY_WORKSPACE": "/w/MT-1",
    }
    first = hook_environment({}, call(attempt=None), secret_names=[])
    assert first["SYMPHONY_ATTEMPT"] == ""


@pytest.mark.parametrize("hook", list(Hook))
async def test_each_moment_runs_its_own_script_in_the_workspace(hook):
    host = ScriptedHost(CompletedCommand(ExitStatus(code=0), ""))
    settings = HookSettings(**{name.value: f"echo {name.value}" for name in Hook}, timeout_ms=2500)
    await run(host, settings, hook)
    spec, timeout_s, _ = host.asked[0]
    assert spec.argv[:2] == ("sh", "-lc")
    assert spec.argv[2].endswith(f"echo {hook.value}")
    assert "unset -v TOKEN" in spec.argv[2]
    assert "TOKEN" not in spec.env
    assert (spec.cwd, spec.run_id, timeout_s) == ("/w/MT-1", "run-1", 2.5)


async def test_nothing_runs_where_no_script_is_set():
    host = ScriptedHost()
    await run(host, HookSettings(after_run="true"))
    assert host.asked == []


async def test_a_failed_hook_says_which_and_how_with_the_end_of_its_output(caplog):
    output = "x" * 5000 + "\nfatal: no such remote\n"
    host = ScriptedHost(CompletedCommand(ExitStatus(code=3), output))
    with caplog.at_level(logging.INFO), pytest.raises(HookError) as caught:
        await run(host, HookSettings(before_run="git fetch"))
    error = caught.value
    assert (error.category, error.hook, error.status) == ("workspace_hook_failed", "before_run", 3)
    assert error.message == "hooks.before_run failed with exit status 3: fatal: no such remote"
    assert len(error.output.encode()) == 2048
    logged = [record for record in caplog.records if record.message == "Hook failed"]
    assert len(logged) == 1
    assert logged[0].output == error.output
    assert logged[0].issue_identifier == "MT-1"


async def test_a_hook_killed_by_a_signal_has_failed():
    host = ScriptedHost(CompletedCommand(ExitStatus(signal=9), ""))
    with pytest.raises(HookError, match="killed by signal 9") as caught:
        await run(host, HookSettings(before_run="true"))
    assert caught.value.category == "workspace_hook_failed"


async def test_a_hook_out_of_time_is_told_apart_and_names_the_setting():
    host = ScriptedHost(CompletedCommand(None, "half\n"))
    with pytest.raises(HookError, match=r"hooks\.timeout_ms") as caught:
        await run(host, HookSettings(before_run="sleep 9", timeout_ms=1500))
    assert caught.value.category == "workspace_hook_timeout"
    assert "1.5 s" in caught.value.message
    assert (caught.value.status, caught.value.output) == (None, "half\n")
