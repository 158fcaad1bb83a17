"""Every public function and method refuses a wrong argument by its name, before anything happens.

The list is made by inspection: what the API reference has is called here, once for each of its
parameters, with an object that nothing can use. What takes anything, or is not for callers, is
named with a reason, so a new function without an entry fails.
"""

from __future__ import annotations

import importlib
import inspect
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server import (
    Capabilities,
    ClientInfo,
    Codex,
    Connection,
    ExecClient,
    InvalidArgument,
    ServerRequestHandlers,
    Session,
    SubprocessTransport,
    Supervisor,
    TokenUsage,
)
from codex_app_server.accounts import ExternalTokens, Login
from codex_app_server.approvals import RequestKind, ServerRequestInfo
from codex_app_server.broker import PendingRequest
from codex_app_server.environment import Redactor
from codex_app_server.launch_plan import LaunchPlan
from codex_app_server.members import _one_field
from codex_app_server.protocol import requests, types
from codex_app_server.testing import ScriptedTransport

CLIENT = Path(__file__).resolve().parents[1]
MODULES = runpy.run_path(str(CLIENT / "tools/generate_reference.py"))["MODULES"]


class Nothing:
    """What no parameter takes."""

    def __repr__(self) -> str:
        return "Nothing()"


WRONG = Nothing()
UNKNOWN = "no_such_option"
SPECIAL: dict[str, Any] = {
    "FilesApi.write_bytes.content": b"x",
    "SubprocessTransport.shell.command": "true",
}
"""What some functions want in another way than the others."""


async def _tool(arguments: Any, context: Any) -> str:
    return "x"


VALID: dict[str, Any] = {
    "access_token": "t",
    "account_id": "a",
    "answer": "accept",
    "argv": ["true"],
    "audio": b"x",
    "base_url": "http://127.0.0.1:1/v1",
    "call_id": "c",
    "child_id": "c",
    "earlier": TokenUsage(),
    "client_info": ClientInfo("test", "1"),
    "cols": 80,
    "command": ["true"],
    "config": {},
    "code": 1,
    "condition": bool,
    "content": ({"type": "inputText", "text": "x"},),
    "data": b"x",
    "description": "d",
    "environment": {},
    "function": _tool,
    "handler": _tool,
    "home": "/nowhere",
    "id": 0,
    "instance": None,
    "item_id": None,
    "kind": RequestKind.COMMAND,
    "number": 15,
    "params": {},
    "message": "no",
    "counts": {},
    "make": list,
    "turn_id": "u",
    "image": b"x",
    "input": "go",
    "input_schema": {"type": "object"},
    "key": "sk-1",
    "method": "model/list",
    "model": "m",
    "name": "n",
    "path": "/x",
    "prompt": "go",
    "query": "q",
    "read_fd": 0,
    "recording": (),
    "roots": ["/"],
    "rows": 24,
    "secret": b"x" * 32,
    "server": "s",
    "skill": "/x",
    "source": ExternalTokens(access_token="t", account_id="a"),
    "text": "more",
    "thread": "t",
    "thread_id": "t",
    "tool": "t",
    "url": "ws://127.0.0.1:1",
    "version": "1",
    "workspace": "/",
    "write_fd": 1,
}
"""What a parameter without a default takes, by its name."""

OBJECTS = {"session": "Session", "transport": "ScriptedTransport", "inner": "ScriptedTransport"}
"""Which of the objects that are made for each test."""

APART: dict[str, str] = {}
"""What is not called with wrong arguments here, and why."""


def apart(reason: str, *labels: str) -> None:
    """Name functions, and the one reason that they share."""
    assert not APART.keys() & set(labels)
    APART.update(dict.fromkeys(labels, reason))


apart(
    "a value that the library makes of what has arrived and been decoded; callers only read it",
    "Capabilities.__init__",
    "CommandOutput.__init__",
    "CommandResult.__init__",
    "DeltaEvent.__init__",
    "Event.__init__",
    "Failure.__init__",
    "InvalidParams.__init__",
    "MalformedLine.__init__",
    "Notification.__init__",
    "RecordedLine.__init__",
    "ServerInfo.__init__",
    "ServerRequestRecord.__init__",
    "SessionResult.__init__",
    "SubAgentEnd.__init__",
    "SupervisorEvent.__init__",
    "ThreadOrigin.__init__",
    "TokenUsage.__init__",
    "TurnOutcome.__init__",
    "TurnResult.__init__",
    "UnknownNotification.__init__",
)
apart("`Codex.start` makes it, and checks its options", "Codex.__init__")
apart("`Connection.open` makes it, and checks its options", "Connection.__init__")
apart("`Session.start` makes it, and checks its options", "Session.__init__")
apart("`Connection.start_thread` and its like make it", "Thread.__init__")
apart("`Thread.run` and its like make it, and check their options", "Turn.__init__")
apart("`Connection.subscribe` makes it, and checks its options", "Subscription.__init__")
apart("`Connection.subagents` makes it, and checks the thread's id", "SubAgents.__init__")
apart("`Supervisor.start_thread` makes it", "SupervisedThread.__init__")
apart("`CommandsApi.start` makes it, and checks its options", "RunningCommand.__init__")
apart("`ExecClient.run` makes it, and checks its options", "ExecRun.__init__")
apart("`AccountApi.login_chatgpt` and its like make it", "Login.__init__")
apart("the broker makes it of a request that waits for a person", "PendingRequest.__init__")
apart("`SubprocessTransport.spawn` makes it, and checks", "SubprocessTransport.__init__")
apart("`FdTransport.open` makes it, and checks", "FdTransport.__init__")
apart("`WebSocketTransport.connect` makes it, and checks", "WebSocketTransport.__init__")
apart(
    "a part of a connection, which makes it; an attribute of it for callers",
    "AccountApi.__init__",
    "CommandsApi.__init__",
    "SkillsApi.__init__",
)
apart(
    "a turn or a thread tells its connection, which is no one else's to tell",
    "Connection.bind",
    "Connection.decline_requests",
    "Connection.expect",
    "Connection.merge_rate_limits",
    "Connection.over_budget",
    "Connection.retire",
    "Connection.spawn",
    "Connection.waits_for_answer",
)
apart(
    "the connection hands over what has arrived, already decoded",
    "Broker.__init__",
    "Broker.accept",
    "Broker.interrupt",
    "Broker.resolved",
    "Broker.turn_ended",
    "Broker.waits",
    "Subscription.lost",
    "Subscription.push",
    "Subscriptions.add",
    "Subscriptions.lost",
    "Subscriptions.publish",
    "Thread.deliver",
    "Turn.bound",
    "Turn.deliver",
    "Turn.lost",
    "Turn.touch",
    "TurnMachine.__init__",
    "TurnMachine.bind",
    "TurnMachine.feed",
    "TurnMachine.hold",
)
apart(
    "a turn books itself in and out of its thread",
    "Thread.claim",
    "Thread.linger",
    "Thread.note",
    "Thread.release",
    "Thread.take_tools",
)
apart(
    "the supervisor and its units talk to each other",
    "Backoff.pause_s",
    "SupervisedThread.restore",
    "SupervisedThread.restore_or_fail",
    "Supervisor.left",
    "Supervisor.tell",
)
apart(
    "a step of a launch; `Codex.start` and `ExecClient` check what callers give",
    "CodexBinary.__init__",
    "ExecClient.plan",
    "LaunchEnvironment.__init__",
    "LaunchPlan.__init__",
    "LaunchPlan.stderr",
    "Redactor.__init__",
    "Redactor.clean",
    "is_command",
    "plan_launch",
    "private_home",
)
apart(
    "a step of a session's options: it is what checks them, all in one mapping",
    "Unattended.__init__",
    "Unattended.handlers",
    "Unattended.settled",
    "check_session_options",
    "check_turn_options",
    "split_run_options",
)
apart(
    "a step between the wire and a turn, with decoded values on both sides",
    "TurnTimeouts.due",
    "call_tool",
    "check_floor",
    "initialize",
    "is_newer_than_schema",
    "kind_of",
    "parse_version",
    "refusal",
    "result_of",
    "with_delta",
    "is_retryable",
    "known_methods",
    "limit_reset",
)
READERS = ("Failure.decode", "TokenUsage.decode", "decode_error_info", "parse_origin")
apart("reads anything that a server says; it is given everything below", *READERS)
apart(
    "of the seam between a connection and its bytes: a connection is what calls it",
    "FdTransport.send",
    "RecordingTransport.exit_status",
    "RecordingTransport.send",
    "ReplayTransport.send",
    "ScriptedTransport.exit_status",
    "ScriptedTransport.send",
    "SubprocessTransport.exit_status",
    "SubprocessTransport.send",
    "Transport.__init__",
    "Transport.send",
    "WebSocketTransport.send",
)

ANYTHING = {
    "Result.__init__.value": "the other end may say anything",
    "Refusal.__init__.data": "the other end may say anything",
    "tools_of.instance": "any object may have tools; one without is refused by its class",
}


class Place:
    """What the functions are called on: one of each class, over scripted servers."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.servers: list[ScriptedTransport] = []

    def server(self) -> ScriptedTransport:
        quiet = ScriptedTransport().on("command/exec").on("account/login/start")
        self.servers.append(quiet)
        return quiet

    @property
    def sent(self) -> int:
        return sum(len(server.sent) for server in self.servers)

    async def connection(self) -> Connection:
        opened = await Connection.open(self.server(), ClientInfo("test", "1"))
        return await self.stack.enter_async_context(opened)

    async def make(self, name: str) -> Any:
        """Return an object whose methods are called."""
        if name in ("Connection", "ThreadOpening", "WideApi"):
            return await self.connection()
        if name in WAYS:
            return await WAYS[name](self)
        raise AssertionError(f"no object of {name} here: add a way to make one, or say why not")


async def _codex(place: Place) -> Any:
    connection = await place.connection()
    plan = LaunchPlan(
        argv=[],
        cwd=None,
        env={},
        redactor=Redactor(()),
        run="none",
        binary=None,
        private_home=None,
    )
    return Codex(connection, connection._transport, plan)  # type: ignore[arg-type] # scripted


async def _session(place: Place) -> Any:
    session = await Session.start(place.folder, transport=place.server())
    return await place.stack.enter_async_context(session)


async def _supervisor(place: Place) -> Any:
    supervisor = await place.stack.enter_async_context(Supervisor(place.connection))
    await supervisor.start_thread()  # what is sent to open a connection does not count
    return supervisor


async def _login(place: Place) -> Any:
    connection = await place.connection()
    events = connection.subscribe(methods=["account/login/completed"])
    return Login(connection.account, events, login_id="l", url="u", user_code=None)


async def _pending(place: Place) -> Any:
    info = ServerRequestInfo(
        id=0,
        method="item/commandExecution/requestApproval",
        kind=RequestKind.COMMAND,
        thread_id="t",
        turn_id="u",
        item_id=None,
        params={},
    )
    return PendingRequest(info)


async def _of_connection(place: Place, what: Callable[[Connection], Any]) -> Any:
    made = what(await place.connection())
    return await made if inspect.isawaitable(made) else made


async def _thread(place: Place) -> Any:
    return await (await place.connection()).start_thread()


async def _supervised(place: Place) -> Any:
    return await (await _supervisor(place)).start_thread()


async def _running(place: Place) -> Any:
    command = (await place.connection()).commands.start(["x"])
    place.stack.callback(command._task.cancel)
    return command


async def _value(value: Any) -> Any:
    return value


WAYS: dict[str, Callable[[Place], Awaitable[Any]]] = {
    "AccountApi": lambda place: _of_connection(place, lambda one: one.account),
    "Codex": _codex,
    "CommandsApi": lambda place: _of_connection(place, lambda one: one.commands),
    "ExecClient": lambda place: _value(ExecClient("/bin/true")),
    "FilesApi": lambda place: _of_connection(place, lambda one: one.fs),
    "Capabilities": lambda place: _value(Capabilities("1", True, None)),
    "Login": _login,
    "PendingRequest": _pending,
    "RunningCommand": _running,
    "ScriptedTransport": lambda place: _value(ScriptedTransport()),
    "Session": _session,
    "ServerRequestHandlers": lambda place: _value(ServerRequestHandlers()),
    "SkillsApi": lambda place: _of_connection(place, lambda one: one.skills),
    "SubprocessTransport": lambda place: _child(place),
    "SubAgents": lambda place: _of_connection(place, lambda one: one.subagents("t")),
    "Subscription": lambda place: _of_connection(place, lambda one: one.subscribe()),
    "SupervisedThread": _supervised,
    "Supervisor": _supervisor,
    "Thread": _thread,
    "TokenUsage": lambda place: _value(TokenUsage()),
    "Turn": lambda place: _turn(place),
}


async def _child(place: Place) -> Any:
    child = await SubprocessTransport.spawn(["cat"])
    place.stack.push_async_callback(child.aclose)
    return child


async def _turn(place: Place) -> Any:
    return (await _thread(place)).run("go")


def functions() -> Iterator[tuple[str, Any]]:
    """Yield the public functions, and the methods of the public classes with their owner."""
    for short in MODULES:
        module = importlib.import_module(f"codex_app_server.{short}")
        for name in () if short == "protocol.requests" else getattr(module, "__all__", ()):
            value = getattr(module, name)
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                yield from methods(value)
            elif inspect.isfunction(value):
                yield name, value


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    if issubclass(owner, BaseException) or owner.__module__.endswith(".messages"):
        return
    if issubclass(owner, dict):
        return  # options: a keyword each, tested where they are given
    if "__init__" in vars(owner) or issubclass(owner, msgspec.Struct):
        yield f"{owner.__name__}.__init__", owner
    for name, value in vars(owner).items():
        if not name.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)
        ):
            yield f"{owner.__name__}.{name}", getattr(owner, name)


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    return {one.name: one for one in found if one.name not in ("self", "cls")}


CALLED = {
    label: function
    for label, function in functions()
    if label not in APART and parameters(function)
}


def options_of(function: Any, parameter: inspect.Parameter) -> list[str]:
    """Return the names of what ``**parameter`` may hold."""
    words = str(parameter.annotation)
    assert words.startswith("Unpack["), f"**{parameter.name}: {words} tells an editor nothing"
    kind = inspect.getmodule(function).__dict__[words[7:-1]]  # type: ignore[union-attr] # is there
    return list(kind.__annotations__)


def wrong_calls(
    label: str, function: Any, valid: Callable[[str], Any]
) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Yield a call with one wrong argument, for each parameter, and its name."""
    given = parameters(function)
    needed = [one for one in given.values() if one.default is one.empty]
    words = [one for one in needed if one.kind is one.KEYWORD_ONLY]
    places = [one for one in needed if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    for name, one in given.items():
        if f"{label}.{name}" in ANYTHING:
            continue
        positional = [WRONG if each is one else valid(each.name) for each in places]
        keywords = {each.name: WRONG if each is one else valid(each.name) for each in words}
        if one.kind is one.VAR_KEYWORD:
            for option in options_of(function, one):
                yield option, tuple(positional), {**keywords, option: WRONG}
            yield UNKNOWN, tuple(positional), {**keywords, UNKNOWN: 1}
        elif one.kind is one.VAR_POSITIONAL:
            yield name, (*positional, WRONG), keywords
        elif one in places or one in words:
            yield name, tuple(positional), keywords
        elif one.kind is one.POSITIONAL_ONLY:
            yield name, (*positional, WRONG), keywords
        else:
            yield name, tuple(positional), {**keywords, name: WRONG}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        yield Place(stack, tmp_path)


async def outcome(call: Callable[[], Any]) -> Any:
    """Call, and wait for or iterate what comes; return the error."""
    try:
        got = call()
        if inspect.isasyncgen(got):
            got = anext(got)
        if inspect.isawaitable(got):
            got = await got
    except Exception as error:
        return error
    return got


@pytest.mark.parametrize("label", sorted(CALLED))
async def test_every_wrong_argument_is_refused_by_its_name(place: Place, label: str) -> None:
    function = CALLED[label]
    owner, _, method = label.partition(".")
    if method and method != "__init__" and not inspect.ismethod(function):
        function = getattr(await place.make(owner), method)
    objects = {name: await place.make(kind) for name, kind in OBJECTS.items()}

    def valid(name: str) -> Any:
        """What the parameter takes; a new one without a value here fails."""
        own = {**VALID, **objects}
        return SPECIAL.get(f"{label}.{name}", own.get(name)) if name in own else own[name]

    sent, missed = place.sent, {}
    for name, positional, keywords in wrong_calls(label, CALLED[label], valid):
        got = await outcome(lambda p=positional, k=keywords: function(*p, **k))
        # Python itself refuses the unknown names of a function that has no ``**options``.
        kinds = (InvalidArgument, TypeError) if name == UNKNOWN else InvalidArgument
        if not isinstance(got, kinds) or name not in str(got):
            missed[name] = got
    assert missed == {}
    assert place.sent == sent


def test_what_is_apart_is_there_and_takes_arguments() -> None:
    there = {label for label, function in functions() if parameters(function)}
    assert [label for label in APART if label not in there] == []
    assert [label for label in ANYTHING if label.rpartition(".")[0] not in CALLED] == []


@pytest.mark.parametrize("label", READERS)
def test_what_reads_anything_takes_anything(label: str) -> None:
    function = dict(functions())[label]
    odd: list[Any] = [WRONG, None, 5, -1.5, True, "x", b"x", [], [5], {}, {5: 5}, {"a": {"b": []}}]
    for value in odd:
        function(value)


def family_methods() -> list[Any]:
    return [
        pytest.param(family, name, id=f"{family}.{name}")
        for family, kind in requests.FAMILIES.items()
        for name, function in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and set(parameters(function)) - {"timeout_s"}
    ]


CANDIDATES = (
    "x",
    5,
    True,
    ["x"],
    [5],
    {"x": 5},
    {},
    [],
    1.5,
    {"type": "uncommittedChanges"},
    {"type": "read"},
    None,
)


def fits(method: str, wire: str, value: Any) -> bool:
    try:
        _one_field(method, wire)(msgspec.json.encode({wire: value}))
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(("family", "name"), family_methods())
async def test_every_wrong_member_of_a_typed_request_is_refused_by_its_name(
    place: Place, family: str, name: str
) -> None:
    connection = await place.connection()
    function = getattr(connection_family(family), name)
    call = getattr(getattr(connection, family), name)
    wire_method = (function.__doc__ or "").split("``")[1]
    given = {one: p for one, p in parameters(function).items() if one != "timeout_s"}
    sent, missed = place.sent, {}
    params = types.CLIENT_REQUESTS[wire_method].params
    is_union = list(given) == ["params"]
    fields = () if is_union else msgspec.structs.fields(params)
    known = {one.name: one.encode_name for one in fields}
    valid = {
        one: next((v for v in CANDIDATES if one in known and fits(wire_method, known[one], v)), {})
        for one, p in given.items()
        if p.default is p.empty
    }
    for one in given:
        wrong = [WRONG]
        if one in known:
            wrong += [v for v in CANDIDATES if not fits(wire_method, known[one], v)][:1]
        for value in wrong:
            got = await outcome(lambda v=value, o=one: call(**{**valid, o: v}))
            if not isinstance(got, InvalidArgument) or one not in str(got):
                missed[one, repr(value)] = got
    got = await outcome(lambda: call(**valid, timeout_s=WRONG))
    if not isinstance(got, InvalidArgument) or "timeout_s" not in str(got):
        missed["timeout_s", repr(WRONG)] = got
    assert missed == {}
    assert place.sent == sent


def connection_family(name: str) -> type:
    return requests.FAMILIES[name]
