"""Every label that operators of the reference know, and hostile input."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.observe.humanize import clean_line, format_duration, humanize


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params}


def wrapped(kind: str, **msg: Any) -> dict[str, Any]:
    return {"method": f"codex/event/{kind}", "params": {"msg": {"type": kind, **msg}}}


USAGE = {"inputTokens": 1200, "outputTokens": "34", "totalTokens": 1234}

METHODS = [
    (note("thread/started", thread={"id": "thr-1"}), "thread started (thr-1)"),
    (note("thread/started"), "thread started"),
    (note("turn/started", turn={"id": "turn-9"}), "turn started (turn-9)"),
    (note("turn/completed"), "turn completed (completed)"),
    (
        note("turn/completed", turn={"status": "completed"}, usage=USAGE),
        "turn completed (completed) (in 1,200, out 34, total 1,234)",
    ),
    (
        note("turn/completed", turn={"status": "failed", "error": {"message": "usage limit"}}),
        "turn completed (failed): usage limit",
    ),
    (note("turn/failed", error={"message": "boom"}), "turn failed: boom"),
    (note("turn/cancelled"), "turn cancelled"),
    (note("turn/diff/updated", diff="a\nb\n\nc\n"), "turn diff updated (3 lines)"),
    (note("turn/diff/updated"), "turn diff updated"),
    (note("turn/plan/updated", plan=[{}, {}]), "plan updated (2 steps)"),
    (note("turn/plan/updated", steps=[{}]), "plan updated (1 steps)"),
    (
        note("thread/tokenUsage/updated", tokenUsage={"total": USAGE}),
        "thread token usage updated (in 1,200, out 34, total 1,234)",
    ),
    (note("thread/tokenUsage/updated"), "thread token usage updated"),
    (
        note("item/started", item={"type": "commandExecution", "id": "call_0123456789"}),
        "item started: command execution (call_0123456)",
    ),
    (
        note(
            "item/started",
            item={
                "type": "commandExecution",
                "id": "c1",
                "status": "inProgress",
                "command": "git status",
            },
        ),
        "item started: command execution (c1, in progress): git status",
    ),
    (note("item/completed", item={"type": "fileChange"}), "item completed: file change"),
    (
        note("item/completed", item={"type": "agentMessage", "text": "Done.\nBye"}),
        "item completed: agent message: Done. Bye",
    ),
    (
        note("item/started", item={"type": "mcpToolCall", "server": "s", "tool": "t"}),
        "item started: mcp tool call: s t",
    ),
    (note("item/agentMessage/delta", delta="hi  there"), "agent message streaming: hi there"),
    (note("item/agentMessage/delta", delta=" "), "agent message streaming"),
    (note("item/plan/delta"), "plan streaming"),
    (note("item/reasoning/summaryTextDelta", delta="x"), "reasoning summary streaming: x"),
    (note("item/reasoning/summaryPartAdded"), "reasoning summary section added"),
    (note("item/reasoning/textDelta", textDelta="y"), "reasoning text streaming: y"),
    (note("item/commandExecution/outputDelta", outputDelta="ok"), "command output streaming: ok"),
    (note("item/fileChange/outputDelta"), "file change output streaming"),
    (
        note("item/commandExecution/requestApproval", parsedCmd="git status"),
        "command approval requested (git status)",
    ),
    (
        note("item/commandExecution/requestApproval", command=["git", "push", "-f"]),
        "command approval requested (git push -f)",
    ),
    (
        note("item/commandExecution/requestApproval", command={"cmd": "ls", "argv": ["-l"]}),
        "command approval requested (ls -l)",
    ),
    (
        note("item/fileChange/requestApproval", fileChangeCount=2),
        "file change approval requested (2 files)",
    ),
    (note("item/fileChange/requestApproval"), "file change approval requested"),
    (note("item/tool/call", tool="linear_graphql"), "dynamic tool call requested (linear_graphql)"),
    (
        note("tool/requestUserInput", question="Continue?"),
        "tool requires user input: Continue?",
    ),
    (
        note("item/tool/requestUserInput", questions=[{"question": "Which\nbranch?"}]),
        "tool requires user input: Which branch?",
    ),
    (note("account/updated", authMode="chatgpt"), "account updated (auth chatgpt)"),
    (note("account/updated"), "account updated (auth unknown)"),
    (
        note(
            "account/rateLimits/updated",
            rateLimits={
                "primary": {"usedPercent": 43, "windowDurationMins": 300},
                "secondary": {"usedPercent": 7},
            },
        ),
        "rate limits updated: primary 43% / 300m; secondary 7% used",
    ),
    (note("account/rateLimits/updated"), "rate limits updated: n/a"),
    (note("account/chatgptAuthTokens/refresh"), "account auth token refresh requested"),
    (
        note("error", error={"message": "overloaded"}, willRetry=True),
        "error (will retry): overloaded",
    ),
    (note("some/future", msg={"type": "odd"}), "some/future (odd)"),
    (note("some/future"), "some/future"),
]

WRAPPED = [
    (
        wrapped("mcp_startup_update", server="fs", status={"state": "ready"}),
        "mcp startup: fs ready",
    ),
    (wrapped("mcp_startup_update"), "mcp startup: mcp updated"),
    (wrapped("mcp_startup_complete"), "mcp startup complete"),
    (wrapped("task_started"), "task started"),
    (wrapped("user_message"), "user message received"),
    (wrapped("item_started", payload={"type": "fileChange"}), "item started (file change)"),
    (wrapped("item_completed"), "item completed"),
    (
        wrapped(
            "item_completed",
            payload={"type": "token_count", "info": {"total_token_usage": {"total_tokens": 5}}},
        ),
        "token count update (total 5)",
    ),
    (wrapped("agent_message_delta", delta="hello"), "agent message streaming: hello"),
    (
        wrapped("agent_message_content_delta", content="structured update"),
        "agent message content streaming: structured update",
    ),
    (wrapped("agent_reasoning_delta", payload={"textDelta": "hmm"}), "reasoning streaming: hmm"),
    (wrapped("reasoning_content_delta"), "reasoning content streaming"),
    (wrapped("agent_reasoning_section_break"), "reasoning section break"),
    (
        wrapped("agent_reasoning", payload={"summaryText": "compare retry paths"}),
        "reasoning update: compare retry paths",
    ),
    (wrapped("agent_reasoning"), "reasoning update"),
    (wrapped("turn_diff"), "turn diff updated"),
    (wrapped("exec_command_begin", command=["mix", "test"]), "mix test"),
    (wrapped("exec_command_begin", parsed_cmd="make"), "make"),
    (wrapped("exec_command_begin"), "command started"),
    (wrapped("exec_command_end", exit_code=0), "command completed (exit 0)"),
    (wrapped("exec_command_end"), "command completed"),
    (wrapped("exec_command_output_delta"), "command output streaming"),
    (wrapped("mcp_tool_call_begin"), "mcp tool call started"),
    (wrapped("mcp_tool_call_end"), "mcp tool call completed"),
    (
        wrapped("token_count", info={"total_token_usage": {"prompt_tokens": 1000}}),
        "token count update (in 1,000)",
    ),
    (wrapped("token_count"), "token count update"),
    (wrapped("novelty"), "novelty (novelty)"),
]

TOOL_CALL = note("item/tool/call", tool="linear_graphql")

EVENTS = [
    ("session_started", {"session_id": "thr-turn"}, "session started (thr-turn)"),
    ("session_started", None, "session started"),
    ("turn_input_required", note("turn/approval"), "turn blocked: waiting for user input"),
    ("approval_required", None, "turn blocked: waiting for approval"),
    (
        "approval_auto_approved",
        {
            "payload": note("item/commandExecution/requestApproval", parsedCmd="git status"),
            "decision": "acceptForSession",
        },
        "command approval requested (git status) (auto-approved): acceptForSession",
    ),
    ("approval_auto_approved", None, "approval request auto-approved"),
    ("tool_call_completed", TOOL_CALL, "dynamic tool call completed (linear_graphql)"),
    ("tool_call_failed", {"payload": TOOL_CALL}, "dynamic tool call failed (linear_graphql)"),
    (
        "unsupported_tool_call",
        note("item/tool/call", name="rm"),
        "unsupported dynamic tool call rejected (rm)",
    ),
    ("tool_call_completed", note("item/tool/call"), "dynamic tool call completed"),
    ("turn_ended_with_error", {"reason": "port_exit"}, "turn ended with error: port_exit"),
    ("turn_ended_with_error", None, "turn ended with error"),
    ("startup_failed", {"reason": {"message": "no binary"}}, "startup failed: no binary"),
    ("turn_failed", note("turn/failed", error={"message": "x"}), "turn failed: x"),
    ("turn_cancelled", None, "turn cancelled"),
    ("malformed", "garbage", "malformed JSON event from codex"),
    ("notification", note("turn/cancelled"), "turn cancelled"),
    ("hook_started", None, "hook started"),
    (None, None, "no codex message yet"),
    (None, "plain\ntext", "plain text"),
    (None, {"error": {"message": "bad"}}, "error: bad"),
    (None, {"session_id": "s"}, "session started (s)"),
    ("notification", {"payload": note("turn/cancelled")}, "turn cancelled"),
]


@pytest.mark.parametrize(("message", "label"), METHODS)
def test_a_protocol_method_gets_its_label(message: Any, label: str) -> None:
    assert humanize("notification", message) == label


@pytest.mark.parametrize(("message", "label"), WRAPPED)
def test_an_older_wrapped_event_gets_its_label(message: Any, label: str) -> None:
    assert humanize("notification", message) == label


@pytest.mark.parametrize(("event", "message", "label"), EVENTS)
def test_our_own_event_gets_its_label(event: str | None, message: Any, label: str) -> None:
    assert humanize(event, message) == label


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07red",
        "\x1b]8;;http://x\x1b\\red",
        "\x9b31mred",
        "re\x00d\x7f",
        "\u202ered\u2066",
        "\x1b7red\r\n",
    ],
)
def test_escapes_and_control_characters_never_reach_a_screen(hostile: str) -> None:
    assert clean_line(hostile, 140) == "red"


def test_a_long_text_is_cut_to_140_characters_with_an_ellipsis() -> None:
    line = humanize(None, "x" * 500)
    assert len(line) == 140
    assert line.endswith("x...")


def test_a_preview_is_cut_to_80_characters() -> None:
    line = humanize(None, note("item/agentMessage/delta", delta="y" * 500))
    assert line == "agent message streaming: " + "y" * 77 + "..."


def test_an_unknown_map_is_shown_in_short_form() -> None:
    assert humanize(None, {"odd": 1}) == "{'odd': 1}"


def test_minutes_are_not_folded_into_hours() -> None:
    assert format_duration(4321.9) == "72m 1s"
    assert format_duration(-3) == "0m 0s"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
known_methods = st.sampled_from(
    [case[0]["method"] for case in METHODS + WRAPPED] + ["codex/event/", ""]
)
params = st.dictionaries(
    st.sampled_from(
        ["msg", "item", "turn", "usage", "tokenUsage", "plan", "delta", "command", "rateLimits",
         "questions", "error", "thread", "diff", "parsedCmd"]
    ),
    json_values | st.dictionaries(st.sampled_from(["payload", "type", "info", "id"]), json_values),
)  # fmt: skip


@given(event=st.none() | st.sampled_from([case[0] for case in EVENTS]), message=json_values)
def test_any_json_value_becomes_one_short_clean_line(event: str | None, message: Any) -> None:
    line = humanize(event, message)
    assert len(line) <= 140
    assert not {"Cc", "Cs"} & {unicodedata.category(character) for character in line}


@given(method=known_methods, inner=params | json_values)
def test_a_known_method_with_any_parameters_becomes_one_short_line(method: str, inner: Any) -> None:
    line = humanize("notification", {"method": method, "params": inner})
    assert len(line) <= 140
    assert "\n" not in line
    assert "\x1b" not in line
