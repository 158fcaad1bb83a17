"""A transport to an app-server that follows rules: for tests without a process or a network.

Each method has rules; a rule is a list of actions, done in order when the client calls the method.
Invariants: the same calls always get the same messages, ids included; a method without a rule is
refused as a real server refuses an unknown one, so that nothing hangs; no clock is read.

`ScriptedTransport` answers the handshake, threads and turns by itself. `codex_app_server.testing`
is where users import it from; `codex_app_server.recording` plays real sessions instead.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec
from msgspec import Struct

from codex_app_server.checks import (
    CONTENT,
    COUNT,
    FLAG,
    FUNCTION,
    TABLE,
    TEXT,
    Check,
    check_values,
    optional,
)
from codex_app_server.errors import ConnectionClosed
from codex_app_server.protocol.rpc import encode_message

__all__ = [
    "Action",
    "Ask",
    "End",
    "Notify",
    "RawBytes",
    "Refusal",
    "Result",
    "ScriptedTransport",
    "Silence",
    "Spend",
    "WaitFor",
    "agent_turn",
]

Message = dict[str, Any]
USER_AGENT = "scripted/0.169.0 (test)"
USAGE = {"inputTokens": 1000, "cachedInputTokens": 0, "outputTokens": 50, "totalTokens": 1050}


A_NUMBER: Check = ("a whole number", lambda value: isinstance(value, int))
AN_ID: Check = ("a number, a text or None", lambda one: one is None or isinstance(one, int | str))


class Result(Struct, frozen=True):
    """The call succeeds with this value."""

    value: Any = msgspec.field(default_factory=dict)


class Refusal(Struct, frozen=True):
    """The call fails with this JSON-RPC error."""

    message: str
    code: int = -32600
    data: Any = None

    def __post_init__(self) -> None:
        check_values(message=(self.message, TEXT), code=(self.code, A_NUMBER))


class Notify(Struct, frozen=True):
    """The server sends a notification."""

    method: str
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_values(method=(self.method, TEXT), params=(self.params, TABLE))


class Ask(Struct, frozen=True):
    """The server sends a request; what follows in the rule waits for the client's answer.

    The answers are in `ScriptedTransport.answers`, by id; ids count from 0 unless one is given.
    """

    method: str
    params: Mapping[str, Any]
    id: int | str | None = None

    def __post_init__(self) -> None:
        check_values(method=(self.method, TEXT), params=(self.params, TABLE), id=(self.id, AN_ID))


class WaitFor(Struct, frozen=True):
    """What follows in the rule waits until the client has called this method.

    Calls before the one that the rule answers do not count, nor does one count twice.
    """

    method: str

    def __post_init__(self) -> None:
        check_values(method=(self.method, TEXT))


class RawBytes(Struct, frozen=True):
    """These bytes arrive as they are; for junk, half lines and foreign encodings."""

    data: bytes

    def __post_init__(self) -> None:
        check_values(data=(self.data, CONTENT))


class End(Struct, frozen=True):
    """The server ends, with this exit status."""

    returncode: int = 0

    def __post_init__(self) -> None:
        check_values(returncode=(self.returncode, A_NUMBER))


class Silence(Struct, frozen=True):
    """The call is never answered."""


class Spend(Struct, frozen=True):
    """The server reports tokens that a turn has used; it adds up the total of the thread.

    ``counts`` has members such as ``inputTokens`` and ``totalTokens``.
    """

    thread_id: str
    turn_id: str
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        check_values(
            thread_id=(self.thread_id, TEXT),
            turn_id=(self.turn_id, TEXT),
            counts=(self.counts, TABLE),
        )


Action = Result | Refusal | Notify | Ask | WaitFor | Spend | RawBytes | End | Silence
DEFAULT = -1


class _Rule(Struct):
    make: Callable[[Message], Iterable[Action]]
    left: int | None


class ScriptedTransport:
    """A transport to an app-server that does as it is told.

    Args:
        defaults: Whether handshake, threads and turns have rules from the start; a turn then says
            what it was asked. False leaves every method to `on`.

    Attributes:
        sent: What the client has sent, decoded, oldest first.
        answers: The client's answers to `Ask`, whole messages by id.
        is_closed: Whether the client has closed the transport.
    """

    def __init__(self, *, defaults: bool = True) -> None:
        check_values(defaults=(defaults, FLAG))
        self.sent: list[Message] = []
        self.answers: dict[int | str, Message] = {}
        self.is_closed = False
        self._rules: dict[str, list[_Rule]] = {}
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ask_ids = itertools.count()
        self._thread_ids = itertools.count(1)
        self._spent: dict[str, dict[str, int]] = {}
        self._returncode: int | None = None
        self._ended = False
        if defaults:
            self._add_defaults()

    def on(self, method: str, *actions: Action, times: int | None = None) -> Self:
        """Add a rule; the rules of a method are used up in order, before its default.

        Args:
            method: Of the client's request or notification.
            actions: Done in order.
            times: How many calls it is good for; None: all that follow.
        """
        check_values(actions=(actions, ("actions such as Result or Notify", _are_actions)))
        return self.on_call(method, lambda message: actions, times=times)

    def on_call(
        self, method: str, make: Callable[[Message], Iterable[Action]], *, times: int | None = None
    ) -> Self:
        """Add a rule whose actions are made from the client's message; see `on`."""
        check_values(method=(method, TEXT), make=(make, FUNCTION), times=(times, optional(COUNT)))
        rules = self._rules.setdefault(method, [])
        default = rules.pop() if rules and rules[-1].left == DEFAULT else None
        rules.append(_Rule(make, times))
        if default is not None:
            rules.append(default)
        return self

    def feed(self, *actions: Action) -> None:
        """Do actions now, apart from any call (`Result`, `Refusal` and `Silence` mean nothing)."""
        check_values(actions=(actions, ("actions such as Notify", _are_actions)))
        self._run(self._perform(actions, None))

    def requests(self, method: str) -> list[Message]:
        """Return what the client has sent of this method."""
        check_values(method=(method, TEXT))
        return [message for message in self.sent if message.get("method") == method]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds; it is looked at whenever the client sends something."""
        check_values(condition=(condition, FUNCTION))
        async with self._changed:
            await self._changed.wait_for(condition)

    # -- the transport -------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """See `Transport.send`."""
        if self._ended or self.is_closed:
            raise ConnectionClosed("the scripted server has ended")
        for line in data.splitlines():
            await self._take(msgspec.json.decode(line))

    async def receive(self) -> bytes:
        """See `Transport.receive`."""
        # Yields at least once, so that whoever waits for a reply is ahead of the end.
        await asyncio.sleep(0)
        if (self._ended or self.is_closed) and self._chunks.empty():
            return b""
        return await self._chunks.get()

    async def exit_status(self, timeout_s: float) -> int | None:
        """Return the status of `End`, or None."""
        return self._returncode

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self.is_closed = True
        self._chunks.put_nowait(b"")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- the inside ----------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        method = message.get("method")
        async with self._changed:
            self.sent.append(message)
            if method is None and "id" in message:
                self.answers[message["id"]] = message
            self._changed.notify_all()
        if isinstance(method, str):
            actions = self._actions(method, message)
            self._run(self._perform(actions, message))

    def _actions(self, method: str, message: Message) -> Iterable[Action]:
        for rule in self._rules.get(method, ()):
            if rule.left == 0:
                continue
            if rule.left is not None and rule.left > 0:
                rule.left -= 1
            return rule.make(message)
        if "id" in message:
            return [Refusal(f"Invalid request: unknown variant `{method}`: no rule for it")]
        return []

    def _run(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="codex-scripted-rule")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, actions: Iterable[Action], message: Message | None) -> None:
        seen = len(self.sent)
        for action in actions:
            match action:
                case Result(value):
                    self._reply(message, {"result": value})
                case Refusal(words, code, data):
                    error = {"code": code, "message": words}
                    error |= {} if data is None else {"data": data}
                    self._reply(message, {"error": error})
                case Notify(method, params):
                    self._write({"method": method, "params": params})
                case Ask(method, params, given):
                    await self._ask(method, params, given)
                case WaitFor(method):
                    seen = await self._called(method, seen)
                case Spend(thread_id, turn_id, counts):
                    self._spend(thread_id, turn_id, counts)
                case RawBytes(data):
                    self._chunks.put_nowait(data)
                case End(returncode):
                    self._returncode, self._ended = returncode, True
                    self._chunks.put_nowait(b"")
                case Silence():
                    pass

    async def _called(self, method: str, seen: int) -> int:
        """Wait for a call of a method beyond the first ``seen`` messages; return its number."""

        def found() -> int | None:
            later = enumerate(self.sent[seen:], seen + 1)
            return next((place for place, one in later if one.get("method") == method), None)

        await self.until(found)
        return found() or seen

    def _spend(self, thread_id: str, turn_id: str, counts: Mapping[str, int]) -> None:
        total = self._spent.setdefault(thread_id, {})
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
        usage = {"last": dict(counts), "total": total}
        ids = {"threadId": thread_id, "turnId": turn_id}
        self._write({"method": "thread/tokenUsage/updated", "params": {**ids, "tokenUsage": usage}})

    async def _ask(self, method: str, params: Mapping[str, Any], given: int | str | None) -> None:
        request_id = next(self._ask_ids) if given is None else given
        self._write({"id": request_id, "method": method, "params": params})
        await self.until(lambda: request_id in self.answers)

    def _reply(self, message: Message | None, body: Message) -> None:
        if message is not None and "id" in message:
            self._write({"id": message["id"], **body})

    def _write(self, message: Message) -> None:
        self._chunks.put_nowait(encode_message(message))

    def _add_defaults(self) -> None:
        opened = ("thread/start", "thread/resume", "thread/fork")
        defaults: dict[str, Callable[[Message], Iterable[Action]]] = {
            "initialize": lambda message: [
                Result({"userAgent": USER_AGENT, "platformFamily": "unix", "platformOs": "linux"})
            ],
            "initialized": lambda message: [],
            "turn/start": lambda message: agent_turn(_prompt(message))(message),
            "turn/interrupt": lambda message: [Result()],
            "thread/backgroundTerminals/clean": lambda message: [Result()],
            "thread/name/set": lambda message: [Result()],
            **dict.fromkeys(opened, self._open_thread),
        }
        for method, make in defaults.items():
            self._rules[method] = [_Rule(make, DEFAULT)]

    def _open_thread(self, message: Message) -> list[Action]:
        params = message.get("params") or {}
        thread_id = params.get("threadId") if message["method"] == "thread/resume" else None
        thread = {"id": thread_id or f"thread-{next(self._thread_ids)}", "status": {"type": "idle"}}
        reply = {"thread": thread, "model": params.get("model") or "scripted", "cwd": "/"}
        return [Result({**reply, **({"cwd": params["cwd"]} if params.get("cwd") else {})})]


def agent_turn(
    *items: str | Mapping[str, Any] | Action,
    status: str = "completed",
    error: Mapping[str, Any] | None = None,
    usage: Mapping[str, int] | None = None,
) -> Callable[[Message], list[Action]]:
    """Return what makes the actions of a whole turn, for ``on_call("turn/start", ...)``.

    Args:
        items: A string is a message of the agent, streamed in two deltas; a mapping is an item as
            the protocol has it (its ``id`` may be left out); an action is done at its place.
            `WaitFor` ``turn/interrupt`` holds the turn until it is interrupted, which is how it
            then ends.
        status: How the turn ends otherwise: ``completed``, ``interrupted``, ``failed``.
        error: ``turn.error`` of a failed turn, for example
            ``{"message": "no", "codexErrorInfo": "unauthorized"}``.
        usage: Token counts that the turn adds.
    """
    check_values(
        items=(items, ("texts, mappings or actions", _are_items)),
        status=(status, TEXT),
        error=(error, optional(TABLE)),
        usage=(usage, optional(TABLE)),
    )

    def make(message: Message) -> list[Action]:
        thread_id = message["params"]["threadId"]
        turn_id = f"turn-{message['id']}"
        return _turn_actions(
            thread_id, turn_id, items, status=status, error=error, usage=usage or USAGE
        )

    return make


def _are_actions(value: Any) -> bool:
    return all(isinstance(one, Action) for one in value)


def _are_items(value: Any) -> bool:
    return all(isinstance(one, str | Mapping | Action) for one in value)


def _turn_actions(
    thread_id: str,
    turn_id: str,
    items: Sequence[str | Mapping[str, Any] | Action],
    *,
    status: str,
    error: Mapping[str, Any] | None,
    usage: Mapping[str, int],
) -> list[Action]:
    ids = {"threadId": thread_id, "turnId": turn_id}
    actions: list[Action] = [
        Result({"turn": {"id": turn_id, "status": "inProgress", "items": []}}),
        Notify("turn/started", {"threadId": thread_id, "turn": {"id": turn_id, "items": []}}),
    ]
    for number, item in enumerate(items):
        if isinstance(item, str):
            actions += _message_actions(ids, f"{turn_id}-item-{number}", item)
        elif isinstance(item, Mapping):
            value = {"id": f"{turn_id}-item-{number}", **item}
            actions += [
                Notify("item/started", {**ids, "item": value}),
                Notify("item/completed", {**ids, "item": value}),
            ]
        else:
            actions.append(item)
            if item == WaitFor("turn/interrupt"):
                status = "interrupted"
                break
    turn: Message = {"id": turn_id, "status": status, "items": [], "durationMs": 10}
    turn |= {} if error is None else {"error": dict(error)}
    return [
        *actions,
        Spend(thread_id, turn_id, usage),
        Notify("turn/completed", {"threadId": thread_id, "turn": turn}),
    ]


def _message_actions(ids: Mapping[str, str], item_id: str, text: str) -> list[Action]:
    half = len(text) // 2
    item = {"type": "agentMessage", "id": item_id, "text": ""}
    deltas = [
        Notify("item/agentMessage/delta", {**ids, "itemId": item_id, "delta": part})
        for part in (text[:half], text[half:])
        if part
    ]
    return [
        Notify("item/started", {**ids, "item": item}),
        *deltas,
        Notify("item/completed", {**ids, "item": {**item, "text": text}}),
    ]


def _prompt(message: Message) -> str:
    texts = (item.get("text", "") for item in message["params"].get("input", ()))
    return " ".join(texts)
