"""The arguments of the command ``codex-app-server``, and what they mean to the library.

Invariant: an argument that makes no sense is refused with its flag's name before anything starts.
Used by `codex_app_server.cli`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from codex_app_server.errors import InvalidArgument
from codex_app_server.launch_plan import LaunchOptions
from codex_app_server.smoke import SLOW_PROMPT, STEPS
from codex_app_server.turn_result import TurnTimeouts

__all__ = [
    "EXIT_CODES",
    "check_arguments",
    "launch_options",
    "limits_of",
    "parser",
    "thread_options",
]

EXIT_CODES = {
    0: "done",
    1: "the turn failed, was interrupted or timed out; a smoke step failed",
    2: "an argument makes no sense, or a file cannot be read or written",
    3: "nothing to talk to: no binary, no such server, refused, an extra is missing",
    4: "the server went away or refused a request",
    130: "interrupted from the keyboard",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    codes = "\n".join(f"  {code:<4} {words}" for code, words in EXIT_CODES.items())
    made = argparse.ArgumentParser(
        prog="codex-app-server",
        description="Try a Codex app-server out, run prompts, record and replay sessions.",
        epilog=f"exit status:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    probe = commands.add_parser("probe", help="connect; print version, capabilities and limits")
    _add_server(probe)
    run = commands.add_parser("run", help="run a prompt as a turn of an app-server")
    _add_server(run)
    _add_turn(run)
    run.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from stdin")
    by_exec = commands.add_parser("exec", help="run a prompt with `codex exec`")
    _add_launch(by_exec)
    _add_turn(by_exec)
    by_exec.add_argument("--skip-git-repo-check", action="store_true", help="as of codex exec")
    by_exec.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from stdin")
    record = commands.add_parser("record", help="run a prompt and record the session as JSONL")
    _add_server(record)
    _add_turn(record)
    record.add_argument(
        "--redact-env",
        action="append",
        default=[],
        metavar="NAME",
        help="mask the value of this variable in the recording (repeatable)",
    )
    record.add_argument("file", metavar="FILE", help="written anew, readable by you alone")
    record.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from stdin")
    replay = commands.add_parser("replay", help="play a recorded session without a server")
    replay.add_argument("--json", action="store_true", help="one JSON object a line")
    replay.add_argument(
        "--speed", type=_speed, metavar="X", help="1 keeps the recorded pauses; none by default"
    )
    replay.add_argument("file", metavar="FILE", help="made by `record`")
    smoke = commands.add_parser("smoke", help="turn, resume, interrupt, preempt, live or scripted")
    _add_server(smoke)
    _add_thread(smoke)
    way = smoke.add_mutually_exclusive_group()
    way.add_argument("--live", action="store_true", help="your login and its model (default)")
    way.add_argument(
        "--scripted", action="store_true", help="the real Codex with a scripted model: no login"
    )
    way.add_argument("--dry", action="store_true", help="no Codex: a scripted server in memory")
    for name in STEPS:
        smoke.add_argument(f"--{name}", action="store_true", help=f"run the step {name}")
    smoke.add_argument("--prompt", default=SLOW_PROMPT, help="of the turn to interrupt")
    return made


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds a turn may take")


def _add_launch(parser: argparse.ArgumentParser) -> None:
    _add_output(parser)
    parser.add_argument("--codex", metavar="PATH", help="the binary; looked for by default")
    parser.add_argument("--codex-home", metavar="DIR", help="CODEX_HOME, or `private`")
    parser.add_argument(
        "-c", "--config", action="append", default=[], metavar="KEY=VALUE", help="overrides"
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    _add_launch(parser)
    parser.add_argument("--url", help="a listening server: ws://host:port or unix:///path")
    parser.add_argument("--token-file", metavar="FILE", help="its bearer token")
    parser.add_argument(
        "--approve",
        choices=("decline", "accept"),
        default="decline",
        help="how commands, patches and MCP tools that ask are answered (default: decline)",
    )


def _add_thread(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cwd", metavar="DIR", help="directory of the agent; this one by default")
    parser.add_argument("--model", help="Codex's own by default")
    parser.add_argument("--sandbox", help="read-only, workspace-write or danger-full-access")
    parser.add_argument("--approval-policy", help="never, on-request or untrusted")


def _add_turn(parser: argparse.ArgumentParser) -> None:
    _add_thread(parser)
    parser.add_argument("--resume", metavar="THREAD", help="go on with this thread")


def _seconds(text: str) -> float:
    return _above_0(text, "no positive number of seconds")


def _speed(text: str) -> float:
    return _above_0(text, "no number above 0")


def _above_0(text: str, complaint: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is {complaint}")
    return value


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what makes no sense together, and read the prompt, before anything starts.

    Raises:
        InvalidArgument: It names the flag.
    """
    given = vars(arguments)
    starting = [name for name in ("codex", "codex_home", "config") if given.get(name)]
    if given.get("dry"):
        for name in ("url", "token_file", *starting):
            if given[name]:
                raise InvalidArgument(f"{_flag(name)} does not go with --dry, which has no Codex")
    if given.get("scripted"):
        for name in ("url", "codex_home", "model"):
            if given[name] is not None:
                raise InvalidArgument(
                    f"{_flag(name)} does not go with --scripted, which brings its own"
                )
    if given.get("token_file") is not None and given["url"] is None:
        raise InvalidArgument("--token-file is for a server that listens: give its --url too")
    if given.get("url") is not None and starting:
        raise InvalidArgument(
            f"{_flag(starting[0])} says how to start a Codex, and the one at --url runs already: "
            "give one of the two"
        )
    for name in given.get("redact_env", ()):
        if not os.environ.get(name):
            raise InvalidArgument(f"--redact-env {name}: there is no such variable, or it is empty")
    if "prompt" in given and arguments.command != "smoke":
        arguments.prompt = _prompt_of(arguments)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _prompt_of(arguments: argparse.Namespace) -> str:
    text = arguments.prompt
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not text.strip():
        raise InvalidArgument("the prompt is empty")
    return str(text)


def limits_of(arguments: argparse.Namespace) -> TurnTimeouts:
    """Return the limits of a turn."""
    return TurnTimeouts(total_s=arguments.timeout)


def thread_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a thread."""
    cwd = os.path.abspath(arguments.cwd) if arguments.cwd is not None else os.getcwd()
    if not os.path.isdir(cwd) and arguments.url is None:
        raise InvalidArgument(f"--cwd {cwd} is no directory")
    return {
        "cwd": cwd,
        "model": arguments.model,
        "sandbox": arguments.sandbox,
        "approval_policy": arguments.approval_policy,
    }


def launch_options(arguments: argparse.Namespace) -> LaunchOptions:
    """Return how the server is started."""
    options: LaunchOptions = {"codex_home": arguments.codex_home}
    config: dict[str, Any] = {}
    for pair in arguments.config:
        key, found, value = pair.partition("=")
        if not found or not key:
            raise InvalidArgument(f"--config {pair!r}: use key=value")
        config[key] = _config_value(value)
    return {**options, "config": config}


def _config_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
