"""Starting a process by its name, path or command, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    BinaryNotFound,
    Codex,
    CodexError,
    ConnectionClosed,
    HomeError,
    InvalidArgument,
    RequestTimeout,
    launch_app_server,
    run_codex,
)
from codex_app_server.cleanup import MARK, Mountpoints, marked_processes

SERVER = """#!%s
import json, os, subprocess, sys
if "--fail" in sys.argv:
    print("no luck with", os.environ.get("SECRET_VALUE"), file=sys.stderr)
    sys.exit(3)
if "--cat" in sys.argv:
    sys.stdout.buffer.write(sys.stdin.buffer.read())
    print("secret is", os.environ.get("SECRET_VALUE"), file=sys.stderr)
    sys.exit(4)
if "--hang" in sys.argv:
    sys.stdin.read()
    import signal
    signal.pause()
for line in sys.stdin:
    message = json.loads(line)
    result = {}
    match message["method"]:
        case "initialize":
            result = {"userAgent": "x/0.169.0 (y)", "codexHome": os.environ.get("CODEX_HOME")}
        case "thread/start":
            result = {"thread": {"id": "t1"}, "cwd": message["params"].get("cwd")}
        case "facts":
            result = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
        case "orphan":
            command = ["setsid", "sleep", message["params"]["seconds"]]
            environment = {**os.environ, **message["params"].get("env", {})}
            if message["params"].get("unmarked"):
                del environment["%s"]
            subprocess.Popen(command, env=environment, start_new_session=True)
    if "id" in message:
        print(json.dumps({"id": message["id"], "result": result}), flush=True)
""" % (sys.executable, MARK)  # noqa: UP031 # the script has braces of its own

Start = Callable[..., Awaitable[Codex]]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "codex"
    path.write_text(SERVER)
    path.chmod(stat.S_IRWXU)
    return path


@pytest.fixture
async def start(script: Path, empty_user: dict[str, str]) -> AsyncIterator[Start]:
    opened: list[Codex] = []

    async def start(codex: Any = script, **options: Any) -> Codex:
        env = {**empty_user, **options.pop("env", {})}
        opened.append(await Codex.start(codex, env=env, **options))
        return opened[-1]

    yield start
    for codex in opened:
        await codex.aclose()


@pytest.fixture
def empty_user(cache_dir: Path) -> dict[str, str]:
    """A HOME without a login profile or a login, outside of the temp directory."""
    return {"HOME": str(cache_dir), "XDG_CACHE_HOME": str(cache_dir / "cache")}


async def facts(codex: Codex) -> dict[str, Any]:
    found: dict[str, Any] = await codex.connection.call("facts", {})
    return found


async def test_a_path_is_started_with_its_config_and_directory(
    start: Start, script: Path, tmp_path: Path
) -> None:
    config = {"features.web": False, "model": "m", "shell": {"exclude": ["A", "B"]}}
    codex = await start(cwd=tmp_path, config=config, arguments=["--x"])
    seen = await facts(codex)
    assert seen["argv"] == [
        *("-c", "features.web=false"),
        *("-c", 'model="m"'),
        *("-c", 'shell.exclude=["A", "B"]'),
        *("--x", "app-server"),
    ]
    assert seen["cwd"] == str(tmp_path)
    assert codex.binary is not None
    assert codex.binary.path == script


async def test_a_command_of_several_words_runs_in_a_shell(start: Start, script: Path) -> None:
    codex = await start(f"exec {script} --from-shell app-server")
    assert (await facts(codex))["argv"] == ["--from-shell", "app-server"]
    assert codex.binary is None


async def test_secrets_stay_outside_and_out_of_stderr(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKER_TOKEN", "tok-123456")
    codex = await start(remove_secrets=["*_TOKEN"])
    assert "TRACKER_TOKEN" not in (await facts(codex))["env"]


async def test_a_process_that_ends_at_once_is_an_error_with_its_words_but_not_its_secrets(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_VALUE", "hush-hush-hush")
    with pytest.raises(ConnectionClosed, match=r"no luck with \[redacted\]") as caught:
        await start(arguments=["--fail"])
    assert caught.value.returncode == 3


async def test_a_private_home_is_made_and_removed_and_shares_the_login(
    start: Start, cache_dir: Path
) -> None:
    login = cache_dir / ".codex/auth.json"
    login.parent.mkdir()
    login.write_text("{}")
    codex = await start(codex_home="private")
    home = codex.home
    assert home is not None
    assert home.is_relative_to(cache_dir / "cache/codex-app-server")
    assert (home / "auth.json").resolve() == login
    await codex.aclose()
    assert not home.exists()
    assert login.read_text() == "{}"


async def test_a_private_home_with_a_login_of_its_own_is_kept(start: Start) -> None:
    codex = await start(codex_home="private")
    assert codex.home is not None
    (codex.home / "auth.json").write_text("{}")
    await codex.aclose()
    assert (codex.home / "auth.json").exists()


async def test_a_start_that_is_refused_leaves_no_private_home(
    start: Start, cache_dir: Path
) -> None:
    with pytest.raises(InvalidArgument):
        await start("codex app-server", codex_home="private", config={"a": 1})
    assert not (cache_dir / "cache/codex-app-server").exists()


async def test_a_home_of_ones_own_is_used_as_it_is(start: Start, cache_dir: Path) -> None:
    codex = await start(codex_home=cache_dir / "mine")
    await codex.aclose()
    assert codex.home == cache_dir / "mine"
    assert list(codex.home.iterdir()) == []


async def test_a_home_below_the_temp_directory_is_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="temp directory"):
        await start(codex_home=tmp_path / "home")


@pytest.mark.parametrize("unmarked", [False, True])
async def test_descendants_that_left_the_process_group_are_swept(
    start: Start, commands_with: Callable[[str], list[int]], eventually: Any, unmarked: bool
) -> None:
    seconds = f"7{os.getpid()}.{int(unmarked)}"
    codex = await start()
    await codex.start_thread()
    # A command that cleans its environment still tells its thread.
    env = {"CODEX_THREAD_ID": "t1"} if unmarked else {}
    await codex.connection.call("orphan", {"seconds": seconds, "unmarked": unmarked, "env": env})
    await eventually(lambda: commands_with(f"sleep\0{seconds}"))
    await codex.aclose()
    await eventually(lambda: not commands_with(f"sleep\0{seconds}"))


async def test_others_are_not_swept(start: Start) -> None:
    codex = await start()
    assert marked_processes("another-run") == []
    run = (await facts(codex))["env"][MARK]
    assert marked_processes(run) == [codex.transport.pid]


async def test_empty_mountpoints_that_appear_are_removed_and_others_kept(
    start: Start, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    (workspace / ".aws").mkdir(parents=True)
    codex = await start()
    await codex.start_thread(cwd=workspace)
    for name in (".git", ".codex", ".agents"):
        (workspace / name).mkdir()
    (workspace / ".git/HEAD").touch()
    await codex.aclose()
    assert sorted(path.name for path in workspace.iterdir()) == [".aws", ".git"]


def test_what_was_there_before_the_first_look_stays(tmp_path: Path) -> None:
    mountpoints = Mountpoints()
    mountpoints.watch(tmp_path)
    (tmp_path / ".git").mkdir()
    mountpoints.watch(tmp_path)
    (tmp_path / ".codex").write_text("")
    assert mountpoints.remove() == [tmp_path / ".git"]
    assert (tmp_path / ".codex").exists()


async def test_closing_twice_and_together_is_fine(start: Start) -> None:
    codex = await start()
    await asyncio.gather(codex.aclose(), codex.aclose())
    await codex.aclose()
    assert codex.transport.returncode == 0


async def test_a_cancelled_close_still_ends_the_process(start: Start) -> None:
    codex = await start()
    began = asyncio.Event()

    async def close() -> None:
        began.set()  # what follows runs up to its wait at once
        await codex.aclose()

    closing = asyncio.create_task(close())
    await began.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert codex.transport.returncode is not None


@pytest.mark.parametrize(
    ("codex", "options", "error", "text"),
    [
        ("/no/such/codex", {}, BinaryNotFound, "does not exist"),
        ("codex app-server", {"config": {"a": 1}}, InvalidArgument, "-c key=value"),
        (None, {"colour": "red"}, InvalidArgument, "unknown options: 'colour'; there are allow"),
        (None, {"remove_secrets": "A"}, InvalidArgument, "remove_secrets='A': give a list"),
        (None, {"cwd": 3}, InvalidArgument, "cwd=3: give a path"),
        (None, {"request_timeout_s": 0}, InvalidArgument, "request_timeout_s=0: give seconds"),
        (None, {"max_in_flight": "9"}, InvalidArgument, "max_in_flight='9'"),
        (17, {}, InvalidArgument, "codex=17"),
        (" ", {}, InvalidArgument, "codex=' ': give a path"),
        (None, {"env_mode": "some"}, InvalidArgument, "env_mode='some'"),
        (None, {"config": {"a": object()}}, HomeError, "a cannot be"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_a_start(
    script: Path, codex: Any, options: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await Codex.start(codex or script, **options)


async def test_the_bare_pipes_of_an_app_server_can_be_had(
    script: Path, empty_user: dict[str, str]
) -> None:
    transport = await launch_app_server(script, env=empty_user)
    await transport.send(b'{"id":1,"method":"initialize","params":{}}\n')
    assert b'"userAgent"' in await transport.receive()
    await transport.aclose()
    with pytest.raises(InvalidArgument, match=r"Codex\.start"):
        await launch_app_server(script, codex_home="private")


async def test_a_command_runs_to_its_end(script: Path, empty_user: dict[str, str]) -> None:
    sent = b"x" * 1_000_000
    env = {**empty_user, "SECRET_VALUE": "hush-hush"}
    result = await run_codex(["--cat"], script, input=sent, env=env)
    assert (result.returncode, result.stdout) == (4, sent)
    assert result.stderr == "secret is [redacted]\n"


async def test_a_command_that_hangs_is_ended(script: Path, empty_user: dict[str, str]) -> None:
    with pytest.raises(CodexError, match=r"ran longer than 0\.3 s"):
        await run_codex(["--hang"], script, timeout_s=0.3, env=empty_user)
    with pytest.raises(InvalidArgument, match="needs a binary"):
        await run_codex(["x"], "codex of some kind")


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("features list", {}, "command='features list': give a list of words"),
        (["features"], {"input": "text"}, "input='text': give bytes"),
        (["features"], {"timeout_s": "5"}, "timeout_s='5': give seconds"),
    ],
)
async def test_a_command_that_makes_no_sense_is_not_run(command, options, words) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        await run_codex(command, "/no/such/codex", **options)


async def test_a_command_that_does_not_answer_is_told_with_its_shell_and_the_setting(
    empty_user: dict[str, str],
) -> None:
    with pytest.raises(RequestTimeout, match=r"login shell.*request_timeout_s"):
        await Codex.start("cat > /dev/null", env=empty_user, request_timeout_s=0.5)


async def test_a_home_of_the_environment_that_is_not_there_is_refused(
    script: Path, empty_user: dict[str, str], tmp_path: Path
) -> None:
    env = {**empty_user, "CODEX_HOME": str(tmp_path / "none")}
    with pytest.raises(HomeError, match=r"CODEX_HOME names .*none, which is no folder: make it"):
        await Codex.start(script, env=env)
