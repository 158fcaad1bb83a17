"""Writes an answer of the scripted model as the events of a Responses API stream.

Pure. The shapes are those that Codex 0.125 to 0.169 accept. Ids of items are built from the length
of the conversation, so they are unique within a thread even if the model server is a new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from symphony.demo.conversation import Conversation
from symphony.demo.script import (
    DroppedStream,
    Exec,
    FailedResponse,
    Item,
    Patch,
    Reply,
    Say,
    Think,
    Tool,
    Usage,
)

Event: TypeAlias = dict[str, Any]


def reply_stream(name: str, reply: Reply, conversation: Conversation) -> Iterator[Event]:
    """Yield the events of a whole reply.

    Args:
        name: Id of the response.
        reply: What the model says and calls.
        conversation: For the ids, and for arguments that are made from it.
    """
    yield {"type": "response.created", "response": {"id": name}}
    for index, item in enumerate(reply.items):
        key = f"{conversation.length}_{index}"
        yield from _item_events(key, index, item, conversation)
    usage = _usage(reply.usage)
    yield {"type": "response.completed", "response": {"id": name, "usage": usage}}


def failed_stream(name: str, fault: FailedResponse) -> Iterator[Event]:
    """Yield the events of a response that fails."""
    yield {"type": "response.created", "response": {"id": name}}
    error = {"code": fault.code, "message": fault.message}
    yield {"type": "response.failed", "response": {"id": name, "error": error}}


def broken_stream(name: str, fault: DroppedStream) -> Iterator[Event]:
    """Yield the events before the connection breaks: a message that never ends."""
    yield {"type": "response.created", "response": {"id": name}}
    *started, _ = _message_events(f"{name}_0", 0, fault.text)
    yield from started


def _item_events(key: str, index: int, item: Item, conversation: Conversation) -> Iterator[Event]:
    match item:
        case Say():
            yield from _message_events(f"msg_{key}", index, item.text)
        case Think():
            yield from _reasoning_events(f"rs_{key}", index, item.text)
        case Exec():
            arguments = {"cmd": item.command, **item.arguments}
            yield _done(index, _call(key, "exec_command", arguments))
        case Tool():
            given = item.arguments
            made = given(conversation) if callable(given) else given
            call = _call(key, item.name, dict(made))
            yield _done(
                index, call if item.namespace is None else {**call, "namespace": item.namespace}
            )
        case Patch():
            ids = {"id": f"ct_{key}", "call_id": f"call_{key}"}
            call = {"type": "custom_tool_call", "name": "apply_patch", "input": item.text}
            yield _done(index, {**call, **ids})


def _call(key: str, name: str, arguments: dict[str, Any]) -> Event:
    ids = {"id": f"fc_{key}", "call_id": f"call_{key}"}
    return {"type": "function_call", "name": name, "arguments": json.dumps(arguments), **ids}


def _done(index: int, item: Event) -> Event:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_events(key: str, index: int, text: str) -> Iterator[Event]:
    message: Event = {"type": "message", "role": "assistant", "id": key}
    at = {"item_id": key, "output_index": index, "content_index": 0}
    added = {**message, "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
    for word in re.findall(r"\S+\s*|\s+", text):
        yield {"type": "response.output_text.delta", "delta": word, **at}
    content = [{"type": "output_text", "text": text}]
    yield _done(index, {**message, "content": content})


def _reasoning_events(key: str, index: int, text: str) -> Iterator[Event]:
    at = {"item_id": key, "output_index": index, "summary_index": 0}
    reasoning: Event = {"type": "reasoning", "id": key}
    added = {**reasoning, "summary": []}
    part = {"type": "summary_text", "text": ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
    yield {"type": "response.reasoning_summary_part.added", "part": part, **at}
    yield {"type": "response.reasoning_summary_text.delta", "delta": text, **at}
    yield _done(index, {**reasoning, "summary": [{"type": "summary_text", "text": text}]})


def _usage(usage: Usage) -> Event:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
