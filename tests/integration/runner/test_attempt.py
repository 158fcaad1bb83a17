"""One attempt meets everything that an app-server, a hook and a tracker can do to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from symphony.engine.stalls import silent_runs
from symphony.errors import HostError, TrackerError
from symphony.hosts.base import HostProcess, ProcessSpec
from symphony.hosts.local import LocalHost
from symphony.model.issue import Issue, IssueId
from symphony.model.run import OutcomeKind, Phase, RetryKind, StopReason
from symphony.runner.attempt import LAUNCHES
from symphony.scheduler.events import RunIssueChanged

from .conftest import Bench, ToolTracker

DONE = [{"tool": "move", "arguments": {"state": "Done"}}, {"status": "completed"}]


async def test_an_attempt_works_turns_until_the_issue_leaves_the_active_states(
    bench: Bench,
) -> None:
    bench.script(turns=[[{"status": "completed"}], DONE])

    outcome = await bench.run()

    assert outcome.kind is OutcomeKind.COMPLETED
    assert bench.progress.turn_count == 2
    prompts = [m["params"]["input"][0]["text"] for m in bench.received("turn/start")]
    assert prompts[0] == "Work on Paint the shed."
    assert "2" in prompts[1]
    assert "Paint the shed" not in prompts[1]
    assert len(bench.received("thread/start")) == 1
    assert bench.hooks_run() == 1
    states = [event.issue.state for event in bench.events if isinstance(event, RunIssueChanged)]
    assert states == ["Todo", "Done"]


async def test_exactly_four_lines_precede_a_first_turn_of_a_server_without_version(
    bench: Bench,
) -> None:
    bench.script(turns=[DONE])
    await bench.run()
    methods = [message["method"] for message in bench.received() if "method" in message]
    assert methods[:4] == ["initialize", "initialized", "thread/start", "turn/start"]
    assert methods[4:] == []


async def test_a_server_that_tells_its_version_gets_the_thread_named(bench: Bench) -> None:
    bench.script(turns=[DONE], user_agent="symphony/0.169.0 (Linux) x")
    await bench.run()
    assert bench.received("thread/name/set")[0]["params"]["name"] == "A-1: Paint the shed"


async def test_policies_cwd_and_tools_reach_the_server(bench: Bench) -> None:
    bench.script(turns=[DONE])
    await bench.run()
    thread = bench.received("thread/start")[0]["params"]
    turn = bench.received("turn/start")[0]["params"]
    workspace = str(bench.root / "workspaces" / "A-1")
    assert thread["cwd"] == turn["cwd"] == workspace == bench.recorded("start")[0]["cwd"]
    assert thread["sandbox"] == "workspace-write"
    assert [tool["name"] for tool in thread["dynamicTools"]] == ["move"]
    policy = turn["sandboxPolicy"]
    assert policy["type"] == "workspaceWrite"
    assert {workspace, f"{workspace}/.git"} <= set(policy["writableRoots"])
    assert policy["networkAccess"] is False
    assert policy["excludeSlashTmp"] is True


async def test_max_turns_ends_an_attempt_that_would_go_on(bench: Bench) -> None:
    bench.configure("agent: {max_turns: 3}\n")
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(bench.received("turn/start")) == 3


@pytest.mark.parametrize(
    ("end", "kind", "category", "retryable"),
    [
        ({"status": "failed", "error": {"message": "no"}}, OutcomeKind.FAILED, "turn_failed", True),
        (
            {
                "status": "failed",
                "error": {"message": "who?", "codexErrorInfo": "unauthorized"},
            },
            OutcomeKind.FAILED,
            "turn_failed",
            False,
        ),
        ({"status": "interrupted"}, OutcomeKind.INTERRUPTED, "turn_cancelled", True),
        ({"exit": 9}, OutcomeKind.FAILED, "port_exit", True),
    ],
)
async def test_the_end_of_a_turn_decides_the_outcome(
    bench: Bench, end: dict[str, Any], kind: OutcomeKind, category: str, retryable: bool
) -> None:
    bench.script(turns=[[end]])

    outcome = await bench.run()

    assert (outcome.kind, outcome.category, outcome.retryable) == (kind, category, retryable)
    assert outcome.message
    assert bench.hooks_run() == 1


async def test_the_last_words_of_a_server_that_exits_are_told(bench: Bench) -> None:
    bench.script(exit_at="initialize", exit_code=3, last_words="Error: no such model")
    outcome = await bench.run()
    assert outcome.category == "port_exit"
    assert "3" in outcome.message
    assert "no such model" in outcome.message


class Unwilling:
    """A host that runs hooks and starts no agent, as one whose supervisor was killed just now."""

    def __init__(self, host: LocalHost) -> None:
        self.name = host.name
        self.run = host.run

    async def start(self, _: ProcessSpec) -> HostProcess:
        raise HostError("host_start_failed", "the supervisor is gone")


async def test_an_agent_that_can_not_be_started_leaves_no_temp_directory(bench: Bench) -> None:
    bench.script(turns=[])
    bench.host = Unwilling(bench.host)
    outcome = await bench.run()
    assert outcome.category == "host_start_failed"
    assert list((bench.root / "cache" / "tmp").iterdir()) == []


async def test_a_command_that_the_shell_can_not_find_is_codex_not_found(bench: Bench) -> None:
    bench.configure('codex: {command: "codex-of-nobody app-server"}\n')
    outcome = await bench.run()
    assert outcome.category == "codex_not_found"
    assert "codex-of-nobody" in outcome.message


@pytest.mark.parametrize("where", ["initialize", "thread/start", "turn/start"])
async def test_a_server_that_does_not_answer_ends_the_attempt_in_time(
    bench: Bench, where: str
) -> None:
    bench.configure(
        "agent: {max_turns: 1}\ncodex: "
        + json.dumps({"command": bench.workflow.settings.codex.command, "read_timeout_ms": 300})
        + "\n"
    )
    bench.script(hang_at=where)
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.category == "response_timeout"
    assert bench.hooks_run() == 1


async def test_silence_within_a_turn_ends_it_after_turn_timeout(bench: Bench) -> None:
    bench.configure(
        "codex: "
        + json.dumps({"command": bench.workflow.settings.codex.command, "turn_timeout_ms": 300})
        + "\n"
    )
    bench.script(turns=[[{"hang": True}]])
    outcome = await bench.run()
    assert (outcome.kind, outcome.category) == (OutcomeKind.TIMED_OUT, "turn_timeout")


def bookkeeping() -> list[dict[str, Any]]:
    """What Codex says of a turn before the agent has done anything."""
    user = {"type": "userMessage", "id": "u", "content": []}
    return [
        {"notify": "turn/started", "params": {"turn": {"id": "turn-1", "status": "inProgress"}}},
        {"notify": "thread/status/changed", "params": {"status": {"type": "active"}}},
        {"notify": "item/started", "params": {"item": user}},
        {"notify": "item/completed", "params": {"item": user}},
    ]


async def test_an_agent_that_never_begins_is_ended_by_a_limit_of_its_own(bench: Bench) -> None:
    command = bench.workflow.settings.codex.command
    codex = {"command": command, "first_event_timeout_ms": 300, "stall_timeout_ms": 0}
    bench.configure(f"codex: {json.dumps(codex)}\n")
    bench.script(turns=[[*bookkeeping(), {"hang": True}]])
    outcome = await bench.run()
    assert (outcome.kind, outcome.category) == (OutcomeKind.TIMED_OUT, "turn_timeout")
    assert "codex.first_event_timeout_ms" in outcome.message
    assert bench.received("turn/interrupt") != []


@pytest.mark.parametrize(
    "sign",
    [
        {"notify": "item/started", "params": {"item": {"type": "reasoning", "id": "r"}}},
        {"notify": "item/agentMessage/delta", "params": {"itemId": "m", "delta": "I"}},
        {"notify": "error", "params": {"error": {"message": "Reconnecting"}, "willRetry": True}},
        {"tool": "move", "arguments": {"state": "In Progress"}},
    ],
)
async def test_an_agent_that_has_begun_may_think_for_longer(
    bench: Bench, sign: dict[str, Any]
) -> None:
    command = bench.workflow.settings.codex.command
    codex = {"command": command, "first_event_timeout_ms": 1000, "turn_timeout_ms": 1500}
    bench.configure(f"codex: {json.dumps(codex)}\n")
    bench.script(turns=[[*bookkeeping(), sign, {"hang": True}]])
    outcome = await bench.run()
    # The turn's own silence ends it, later than the first limit would have.
    assert outcome.message == "turn exceeded its idle limit of 1.5 s"


async def test_junk_on_stdout_and_stderr_hurts_nobody(bench: Bench) -> None:
    junk = [
        {"raw": "null"},
        {"raw": "[1, 2]"},
        {"raw": "{broken"},
        {"raw": '{"id": 1}'},
        {"raw": "x" * 200_000},
        {"stderr": '{"method": "turn/completed"}'},
        {"notify": "no/such/method", "params": {"a": 1}},
    ]
    bench.script(turns=[[*junk, *DONE]])
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED


async def test_another_threads_completion_does_not_end_the_turn(bench: Bench) -> None:
    foreign = {
        "notify": "turn/completed",
        "params": {"threadId": "other", "turn": {"id": "t", "status": "failed", "items": []}},
    }
    bench.script(turns=[[foreign, *DONE]])
    assert (await bench.run()).kind is OutcomeKind.COMPLETED


APPROVAL = {"ask": "item/commandExecution/requestApproval", "params": {"command": "rm -rf /"}}
QUESTION = {
    "ask": "item/tool/requestUserInput",
    "params": {"questions": [{"id": "q", "question": "Which colour?", "options": []}]},
}
ELICITATION = {"ask": "mcpServer/elicitation/request", "params": {"message": "Your name?"}}


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        (APPROVAL, OutcomeKind.APPROVAL_REQUIRED, "rm -rf /"),
        (QUESTION, OutcomeKind.INPUT_REQUIRED, "Which colour?"),
        (ELICITATION, OutcomeKind.INPUT_REQUIRED, "Your name?"),
    ],
)
async def test_what_needs_a_person_ends_the_attempt_with_the_question(
    bench: Bench, asked: dict[str, Any], kind: OutcomeKind, said: str
) -> None:
    command = bench.workflow.settings.codex.command
    codex = {"command": command, "approval_policy": "on-request"}
    bench.configure(f"codex: {json.dumps(codex)}\n")
    bench.script(turns=[[asked, {"hang": True}]])
    outcome = await bench.run()
    assert outcome.kind is kind
    assert said in outcome.message
    assert not outcome.retryable


async def test_the_default_policy_refuses_what_is_asked_and_the_turn_goes_on(
    bench: Bench,
) -> None:
    bench.script(turns=[[APPROVAL, *DONE]])
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED
    answers = [m["result"] for m in bench.received() if "result" in m]
    assert answers[0] == {"decision": "decline"}


async def test_policy_never_grants_approvals_for_the_session(bench: Bench) -> None:
    bench.configure(
        "codex: "
        + json.dumps({"command": bench.workflow.settings.codex.command, "approval_policy": "never"})
        + "\n"
    )
    approvals = [
        APPROVAL,
        {"ask": "item/fileChange/requestApproval"},
        {"ask": "execCommandApproval"},
    ]
    bench.script(turns=[[*approvals, *DONE]])

    outcome = await bench.run()

    assert outcome.kind is OutcomeKind.COMPLETED
    answers = [m["result"] for m in bench.received() if "result" in m]
    assert answers[:3] == [
        {"decision": "acceptForSession"},
        {"decision": "acceptForSession"},
        {"decision": "approved_for_session"},
    ]


async def test_an_unknown_request_is_answered_with_an_error_at_once(bench: Bench) -> None:
    bench.script(turns=[[{"ask": "no/such/request"}, *DONE]])
    assert (await bench.run()).kind is OutcomeKind.COMPLETED
    assert any(message.get("error", {}).get("code") == -32601 for message in bench.received())


async def test_an_unknown_tool_fails_and_the_turn_goes_on(bench: Bench) -> None:
    bench.script(turns=[[{"tool": "invented"}, *DONE]])
    assert (await bench.run()).kind is OutcomeKind.COMPLETED
    answers = [m["result"] for m in bench.received() if "result" in m]
    assert [answer["success"] for answer in answers] == [False, True]


async def test_a_stop_ends_processes_and_still_runs_after_run(bench: Bench) -> None:
    bench.script(turns=[[{"hang": True}]], linger=True)
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.received("turn/start"))

    attempt.stop(StopReason.INACTIVE)
    outcome = await running

    assert outcome.kind is OutcomeKind.CANCELLED
    assert outcome.stop_reason is StopReason.INACTIVE
    assert bench.progress.phase is Phase.CANCELED_BY_RECONCILIATION
    assert bench.hooks_run() == 1


async def test_a_stall_is_its_own_outcome(bench: Bench) -> None:
    bench.script(turns=[[{"hang": True}]])
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.received("turn/start"))

    attempt.stop(StopReason.STALLED)
    outcome = await running

    assert outcome.kind is OutcomeKind.STALLED
    assert "without codex activity" in outcome.message


async def test_an_agent_that_moves_its_issue_may_finish_its_turn(bench: Bench) -> None:
    gate = bench.root / "gate"
    bench.script(turns=[[DONE[0], {"wait_for": str(gate)}, {"status": "completed"}]])
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.tracker.issues[0].state == "Done")

    attempt.stop(StopReason.TERMINAL)
    gate.touch()
    outcome = await running

    assert outcome.kind is OutcomeKind.COMPLETED
    assert outcome.stop_reason is StopReason.TERMINAL
    assert len(bench.received("turn/start")) == 1
    assert bench.received("turn/interrupt") == []


async def test_a_failing_before_run_fails_the_attempt_and_after_run_still_runs(
    bench: Bench,
) -> None:
    (bench.root / "script.json").unlink()
    outcome = await bench.run()
    assert (outcome.kind, outcome.category) == (OutcomeKind.FAILED, "workspace_hook_failed")
    assert bench.hooks_run() == 1
    assert bench.recorded("start") == []


async def test_a_prompt_that_can_not_be_rendered_fails_before_anything_is_started(
    bench: Bench,
) -> None:
    bench.configure(prompt="{{ issue.colour }}")
    outcome = await bench.run()
    assert outcome.category == "template_render_error"
    assert "colour" in outcome.message
    assert bench.recorded("start") == []


async def test_a_tracker_that_fails_after_a_turn_fails_the_attempt(bench: Bench) -> None:
    bench.script(turns=[[{"status": "completed"}]])
    bench.tracker.failure = TrackerError("tracker_request", "no route")
    outcome = await bench.run()
    assert (outcome.kind, outcome.category) == (OutcomeKind.FAILED, "issue_state_refresh_failed")


async def test_a_tracker_that_hangs_after_a_turn_does_not_hold_the_run(bench: Bench) -> None:
    class Hanging(ToolTracker):
        async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

    bench.tracker = Hanging(bench.tracker.issues)
    bench.context["issue_read_s"] = 0.05
    bench.script(turns=[[{"status": "completed"}]])

    outcome = await bench.run()

    assert (outcome.kind, outcome.category) == (OutcomeKind.FAILED, "issue_state_refresh_failed")
    assert outcome.retryable
    assert "no answer within 0.05 s" in outcome.message
    assert bench.hooks_run() == 1


async def test_hooks_are_alive_up_to_their_own_limits(bench: Bench) -> None:
    """Defect 32: a long hook before the first event counted as a stall."""
    gate = bench.root / "gate"
    bench.configure()
    hooks = bench.workflow.settings.hooks.model_copy(
        update={
            "before_run": f"touch began; until [ -e {gate} ]; do sleep 0.01; done; false",
            "timeout_ms": 60_000,
        }
    )
    bench.workflow = replace(
        bench.workflow, settings=bench.workflow.settings.model_copy(update={"hooks": hooks})
    )
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until((bench.root / "workspaces" / "A-1" / "began").exists)
    began = bench.progress.last_activity_mono

    assert silent_runs({attempt.spec.run_id: bench.progress}, limit=1.0, now=began + 50) == []
    assert silent_runs({attempt.spec.run_id: bench.progress}, limit=1.0, now=began + 99_999) != []

    gate.touch()
    await running
    assert bench.progress.last_activity_mono > began


async def test_the_outcome_is_on_the_disk_before_the_run_is_wound_up(bench: Bench) -> None:
    gate, began = bench.root / "gate", bench.root / "began"
    bench.script(turns=[[{"status": "failed", "error": {"message": "out of paint"}}]])
    after_run = f"touch {began}; until [ -e {gate} ]; do sleep 0.01; done"
    hooks = bench.workflow.settings.hooks.model_copy(update={"after_run": after_run})
    settings = bench.workflow.settings.model_copy(update={"hooks": hooks})
    bench.workflow = replace(bench.workflow, settings=settings)
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(began.exists)
    (claim,) = (await bench.ledger.load()).restored.claims
    gate.touch()
    outcome = await running

    assert "out of paint" in outcome.message
    assert claim.ended is not None
    assert claim.ended.outcome == outcome
    assert claim.ended.workspace_path == str(bench.root / "workspaces" / "A-1")
    assert claim.ended.thread_id == bench.progress.thread_id
    assert claim.ended.seconds > 0


async def test_a_ledger_that_takes_no_outcome_holds_no_end_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    gate = bench.root / "gate"
    bench.script(turns=[[{"wait_for": str(gate)}, {"status": "failed", "error": {"message": "x"}}]])
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.received("turn/start"))
    await bench.ledger.aclose()
    gate.touch()
    assert (await running).kind is OutcomeKind.FAILED
    assert bench.hooks_run() == 1
    assert "Ledger write failed" in caplog.text


async def test_a_label_that_was_removed_ends_the_attempt_well(bench: Bench) -> None:
    bench.configure("tracker: {kind: memory, required_labels: [agent]}\n".replace("tracker", "x"))
    bench.workflow = replace(
        bench.workflow,
        settings=bench.workflow.settings.model_copy(
            update={
                "tracker": bench.workflow.settings.tracker.model_copy(
                    update={"required_labels": ("agent",)}
                )
            }
        ),
    )
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(bench.received("turn/start")) == 1


async def test_tokens_are_added_over_threads_and_never_twice(bench: Bench) -> None:
    def usage(thread: str, total: int) -> dict[str, Any]:
        counts = {"totalTokens": total, "inputTokens": total - 1, "outputTokens": 1}
        return {
            "notify": "thread/tokenUsage/updated",
            "params": {"threadId": thread, "tokenUsage": {"total": counts, "last": counts}},
        }

    steps = [usage("main", 100), usage("child", 50), usage("main", 80), usage("main", 130)]
    bench.script(turns=[[*steps, *DONE]])
    await bench.run()
    assert bench.progress.usage.total_tokens == 180


async def test_the_marker_and_no_secret_reach_the_agent(bench: Bench) -> None:
    bench.script(turns=[DONE])
    await bench.run()
    env = bench.recorded("start")[0]["env"]
    assert env["SYMPHONY_RUN_ID"] == bench.progress.run_id
    assert env["CODEX_HOME"].endswith("cache/home")
    assert env["TMPDIR"].endswith(bench.progress.run_id)


VERSIONED = "symphony/0.169.0 (Linux) x"


async def test_a_retry_goes_on_in_the_thread_of_the_run_before(bench: Bench) -> None:
    def usage(total: int, last: int) -> dict[str, Any]:
        def counts(number: int) -> dict[str, int]:
            return {"totalTokens": number, "inputTokens": number, "outputTokens": 0}

        params = {"tokenUsage": {"total": counts(total), "last": counts(last)}}
        return {"notify": "thread/tokenUsage/updated", "params": params}

    begun = {"notify": "item/started", "params": {"item": {"type": "reasoning", "id": "i"}}}
    steps = [usage(1_000, 5), begun, usage(1_010, 10), usage(1_030, 20)]
    bench.script(turns=[[*steps, *DONE]], user_agent=VERSIONED)

    await bench.run(
        attempt=1, retry_kind=RetryKind.FAILURE, thread_id="thr-1", previous_error="out of paint"
    )

    assert bench.received("thread/start") == []
    assert bench.received("thread/resume")[0]["params"]["threadId"] == "thr-1"
    prompt = bench.received("turn/start")[0]["params"]["input"][0]["text"]
    assert "out of paint" in prompt
    assert "Paint the shed" not in prompt
    # What earlier runs used is not counted again.
    assert bench.progress.usage.total_tokens == 30


async def test_a_thread_that_is_gone_is_replaced_and_gets_the_whole_prompt(bench: Bench) -> None:
    bench.script(turns=[DONE], user_agent=VERSIONED, refuse=["thread/resume"])
    await bench.run(attempt=1, retry_kind=RetryKind.RECOVERY, thread_id="thr-gone")
    assert len(bench.received("thread/start")) == 1
    prompt = bench.received("turn/start")[0]["params"]["input"][0]["text"]
    assert prompt.startswith("Work on Paint the shed.\n\nThis is not the first run on this issue.")
    assert "broken off from outside" in prompt


async def test_a_thread_that_lost_its_prompt_gets_the_whole_prompt(bench: Bench) -> None:
    bench.script(turns=[DONE], user_agent=VERSIONED, preview="")
    await bench.run(attempt=1, retry_kind=RetryKind.RECOVERY, thread_id="thr-1")
    assert len(bench.received("thread/resume")) == 1
    prompt = bench.received("turn/start")[0]["params"]["input"][0]["text"]
    assert prompt.startswith("Work on Paint the shed.\n\nThis is not the first run on this issue.")
    assert "broken off from outside" in prompt


@pytest.mark.parametrize(
    ("prompt", "resume", "said"),
    [
        ("Do it.", True, "Do it.\n\nThis is not the first run on this issue.\n\n- The run before "),
        ("Do it. {{ previous_error }}", True, "Do it. out of paint"),
        ("Do it.", False, "Do it."),
    ],
)
async def test_a_run_that_begins_anew_after_a_failure_is_told_why_once(
    bench: Bench, prompt: str, resume: bool, said: str
) -> None:
    command = bench.workflow.settings.codex.command
    codex = {"command": command, "resume_threads": resume}
    bench.configure(f"codex: {json.dumps(codex)}\n", prompt=prompt)
    bench.script(turns=[DONE], user_agent=VERSIONED)
    await bench.run(attempt=2, retry_kind=RetryKind.FAILURE, previous_error="out of paint")
    told = bench.received("turn/start")[0]["params"]["input"][0]["text"]
    assert told.startswith(said)
    assert told.count("out of paint") == (0 if not resume else 1)


async def test_a_thread_that_has_its_prompt_is_not_told_twice(bench: Bench) -> None:
    bench.script(turns=[DONE], user_agent=VERSIONED, preview="Work on Paint the shed.")
    await bench.run(attempt=1, retry_kind=RetryKind.RECOVERY, thread_id="thr-1")
    prompt = bench.received("turn/start")[0]["params"]["input"][0]["text"]
    assert "Paint the shed" not in prompt


@pytest.mark.parametrize(("stumbles", "starts"), [(1, 2), (9, LAUNCHES)])
async def test_a_server_without_its_helpers_is_started_again_but_not_for_ever(
    bench: Bench, stumbles: int, starts: int
) -> None:
    bench.script(turns=[DONE], stumbles=stumbles)
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(bench.recorded("start")) == starts
    # Only the last one is given a thread, and the others have gone before it.
    (started,) = bench.recorded("received")[-1:]
    assert len(bench.received("thread/start")) == 1
    assert len({entry["pid"] for entry in bench.recorded("start")}) == starts
    assert started["pid"] == bench.recorded("start")[-1]["pid"]


async def test_threads_are_not_resumed_where_the_settings_say_so(bench: Bench) -> None:
    command = bench.workflow.settings.codex.command
    bench.configure(f"codex: {json.dumps({'command': command, 'resume_threads': False})}\n")
    bench.script(turns=[DONE], user_agent=VERSIONED)
    await bench.run(attempt=1, retry_kind=RetryKind.CONTINUATION, thread_id="thr-1")
    assert bench.received("thread/resume") == []


async def test_the_continuation_text_can_be_set(bench: Bench) -> None:
    bench.configure(
        'agent: {continuation_prompt: "{{ issue.identifier }}: {{ turn }}/{{ max_turns }}"}\n'
    )
    bench.script(turns=[[{"status": "completed"}], DONE])
    await bench.run()
    prompts = [m["params"]["input"][0]["text"] for m in bench.received("turn/start")]
    assert prompts[1] == "A-1: 2/20"
