"""The command ``codex-app-server``: try a server out, run prompts, record and replay sessions.

Invariant: what is printed for people goes to stdout in plain lines, with ``--json`` as one JSON
object a line, errors as one sentence to stderr; the exit status is one of `EXIT_CODES`. Only
arguments are read here; the library does the work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codex_app_server.approvals import ServerRequestHandlers
from codex_app_server.cli_arguments import (
    EXIT_CODES,
    check_arguments,
    launch_options,
    limits_of,
    parser,
    thread_options,
)
from codex_app_server.cli_output import print_json, show_end, show_event, show_result
from codex_app_server.connection import ClientInfo, Connection
from codex_app_server.errors import (
    BinaryNotFound,
    CodexError,
    ConnectionClosed,
    HandshakeRefused,
    InvalidArgument,
    MissingExtra,
    RecordingError,
    RequestError,
    TurnError,
)
from codex_app_server.exec import ExecClient, ExecRun
from codex_app_server.home import HomeError
from codex_app_server.launch import Codex, launch_app_server
from codex_app_server.protocol.rpc import Rpc, Run
from codex_app_server.protocol.turn import TurnMachine
from codex_app_server.recording import RecordingTransport, read_recording
from codex_app_server.smoke import (
    STEPS,
    SmokeStep,
    dry_connection,
    run_smoke,
    scripted_codex,
)
from codex_app_server.transport import Transport
from codex_app_server.turns import Turn
from codex_app_server.websocket import WebSocketTransport

__all__ = ["EXIT_CODES", "main"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
CLIENT = ClientInfo("codex-app-server", "0.1.0", "codex-app-server command")


class _Unreachable(CodexError):
    """No server listens at ``--url``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        argv: Arguments without the program's name; those of the process by default.
    """
    arguments = parser().parse_args(argv)
    try:
        check_arguments(arguments)
        return asyncio.run(_COMMANDS[arguments.command](arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CodexError as error:
        print(f"codex-app-server: {error}", file=sys.stderr)
        return _exit_code(error)


def _exit_code(error: CodexError) -> int:
    match error:
        case TurnError():
            return 1
        case BinaryNotFound() | MissingExtra() | HandshakeRefused() | _Unreachable():
            return 3
        case InvalidArgument() | HomeError() | RecordingError():
            return 2
        case _:
            return 4


# -- commands ----------------------------------------------------------------------------------


async def _probe(arguments: argparse.Namespace) -> int:
    async with _connected(arguments) as connection:
        server = connection.server
        methods = await _methods(connection)
        facts: dict[str, Any] = {
            "version": server.version,
            "user_agent": server.user_agent,
            "platform": server.platform_os,
            "codex_home": server.codex_home,
            "experimental": server.experimental,
            "methods": len(methods) if methods is not None else None,
            "models": await _ask(connection, "model/list", _names),
            "account": await _ask(connection, "account/read", lambda reply: reply.get("account")),
            "rate_limits": await _ask(connection, "account/rateLimits/read", lambda reply: reply),
        }
    if arguments.json:
        print_json({**facts, "methods": sorted(methods) if methods is not None else None})
    else:
        for name, value in facts.items():
            print(f"{name:12} {value if isinstance(value, str) else json.dumps(value)}")
    return 0


async def _methods(connection: Connection) -> frozenset[str] | None:
    """Return what the server accepts: it lists that where a method is unknown; None if not."""
    return (await connection.capabilities()).methods


async def _ask(connection: Connection, method: str, read: Any) -> Any:
    try:
        reply = await connection.call(method, {} if method != "account/rateLimits/read" else None)
    except RequestError as error:
        return {"refused": error.message[:200]}
    return read(reply) if isinstance(reply, dict) else reply


def _names(reply: dict[str, Any]) -> list[Any]:
    return [model.get("id") for model in reply.get("data") or () if isinstance(model, dict)]


async def _run(arguments: argparse.Namespace) -> int:
    async with _connected(arguments) as connection:
        return await _turn(connection, arguments)


async def _record(arguments: argparse.Namespace) -> int:
    secrets = [os.environ[name] for name in arguments.redact_env]
    async with _connected(arguments, record=arguments.file, secrets=secrets) as connection:
        status = await _turn(connection, arguments)
    return status


async def _turn(connection: Connection, arguments: argparse.Namespace) -> int:
    options = thread_options(arguments)
    if arguments.resume is not None:
        thread = await connection.resume_thread(arguments.resume, **options)
    else:
        thread = await connection.start_thread(**options)
    for warning in thread.warnings:
        print(f"codex-app-server: {warning}", file=sys.stderr)
    return await _follow(thread.run(arguments.prompt, timeouts=limits_of(arguments)), arguments)


async def _exec(arguments: argparse.Namespace) -> int:
    client = ExecClient(arguments.codex, **launch_options(arguments))
    run = client.run(
        arguments.prompt,
        resume=arguments.resume,
        cwd=arguments.cwd,
        model=arguments.model,
        sandbox=arguments.sandbox,
        approval_policy=arguments.approval_policy,
        skip_git_repo_check=arguments.skip_git_repo_check,
        timeouts=limits_of(arguments),
    )
    status = await _follow(run, arguments)
    for warning in run.warnings:
        print(f"codex-app-server: {warning}", file=sys.stderr)
    return status


async def _replay(arguments: argparse.Namespace) -> int:
    """Show a recorded session as it was shown when it ran, whatever its client did."""
    rpc, loop = Rpc(), asyncio.get_running_loop()
    machines: dict[tuple[str | None, str | None], TurnMachine] = {}
    before = 0.0
    for entry in read_recording(arguments.file):
        if entry.dir == ">":
            continue
        if arguments.speed and entry.t > before:
            await asyncio.sleep((entry.t - before) / arguments.speed)
        before = entry.t
        for inbound in rpc.receive(entry.line.encode() + b"\n", loop.time()):
            if isinstance(inbound, Run):
                _replay_events(inbound, machines, arguments)
    outcomes = [machine.outcome for machine in machines.values()]
    completed = [one for one in outcomes if one is not None and one.status == "completed"]
    return 0 if len(completed) == len(outcomes) else 1


def _replay_events(
    run: Run,
    machines: dict[tuple[str | None, str | None], TurnMachine],
    arguments: argparse.Namespace,
) -> None:
    if run.thread_id is not None and run.turn_id is not None:
        machine = machines.get((run.thread_id, run.turn_id))
        if machine is None:
            machine = machines[run.thread_id, run.turn_id] = TurnMachine(run.thread_id)
            machine.bind(run.turn_id)
        machine.feed(run.events)
        for event in run.events:
            show_event(event, arguments)
        if machine.outcome is not None:
            show_end(machine, arguments)


async def _smoke(arguments: argparse.Namespace) -> int:
    steps = [name for name in STEPS if getattr(arguments, name)] or list(STEPS)

    def show(step: SmokeStep) -> None:
        if arguments.json:
            print_json({"step": step.name, "ok": step.ok, "detail": step.detail})
        else:
            print(f"{'ok' if step.ok else 'FAILED':6} {step.name:9} {step.detail}", flush=True)

    async with _smoke_server(arguments) as (connect, options):
        results = await run_smoke(
            connect,
            steps=steps,
            thread_options=options,
            slow_prompt=arguments.prompt,
            step_timeout_s=arguments.timeout or 180.0,
            local=not arguments.dry and _is_local(arguments.url),
            on_step=show,
        )
    return 0 if all(step.ok for step in results) else 1


@asynccontextmanager
async def _smoke_server(arguments: argparse.Namespace) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """Yield what opens connections to the server under test, and the options of its threads."""
    options = thread_options(arguments)
    if arguments.dry:
        yield dry_connection(), {}
    elif arguments.scripted:
        # The command is the prompt's, not a model's idea: it needs no sandbox.
        free = {"sandbox": "danger-full-access", "approval_policy": "never"}
        given = {name: value for name, value in options.items() if value is not None}
        config = launch_options(arguments)["config"]
        async with scripted_codex(arguments.codex, config) as connect:
            yield connect, {**free, **given}
    else:
        yield lambda: _connected(arguments), options


def _is_local(url: str | None) -> bool:
    """Tell whether a server may run on this machine; behind a forwarded port it does not."""
    try:
        return url is None or url.startswith("unix:") or urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False  # the step that connects says what is wrong with it


# -- pieces ------------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(
    arguments: argparse.Namespace, *, record: str | None = None, secrets: Sequence[str] = ()
) -> AsyncIterator[Connection]:
    answer = arguments.approve
    handlers = ServerRequestHandlers(command=answer, file_change=answer, mcp_tool=answer)
    if arguments.url is None and record is None:
        launch = launch_options(arguments)
        async with await Codex.start(
            arguments.codex, handlers=handlers, client_info=CLIENT, **launch
        ) as codex:
            yield codex.connection
        return
    transport: Transport
    if arguments.url is not None:
        transport = await _reach(arguments)
    else:
        transport = await launch_app_server(arguments.codex, **launch_options(arguments))
    recorder: RecordingTransport | None = None
    if record is not None:
        try:
            transport = recorder = RecordingTransport(transport, record, redact=secrets)
        except CodexError:
            await transport.aclose()
            raise
    async with await Connection.open(transport, CLIENT, handlers=handlers) as connection:
        yield connection
    if recorder is not None and recorder.error is not None:
        raise recorder.error


async def _reach(arguments: argparse.Namespace) -> Transport:
    token = _token(arguments)
    try:
        return await WebSocketTransport.connect(arguments.url, token=token)
    except HandshakeRefused:
        raise
    except ConnectionClosed as error:
        raise _Unreachable(str(error)) from error


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        return None
    try:
        return Path(arguments.token_file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--token-file {arguments.token_file}: {error}") from error


async def _follow(turn: Turn | ExecRun, arguments: argparse.Namespace) -> int:
    async for event in turn:
        show_event(event, arguments)
    result = await turn
    show_result(result, arguments)
    return 0


_COMMANDS = {
    "probe": _probe,
    "run": _run,
    "exec": _exec,
    "record": _record,
    "replay": _replay,
    "smoke": _smoke,
}
