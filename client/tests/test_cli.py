"""The command ``codex-app-server``, in a process of its own as its users run it."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import WebSocketTransport
from codex_app_server.cli import EXIT_CODES
from codex_app_server.home import prepare_home, provider_config, write_config
from codex_app_server.scripted_model import ScriptedModel

from symphony.demo.script import Exec, Fail, Say, turn

COMMAND = "import sys; from codex_app_server.cli import main; sys.exit(main())"
FREE = ("--sandbox", "danger-full-access", "--approval-policy", "never")


async def _run(
    *words: str, env: dict[str, str] | None = None, input: bytes = b"", cwd: Path | None = None
) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        *words,
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(input)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def _objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


STEPS = ["turn", "resume", "interrupt", "preempt"]


async def test_the_dry_smoke_passes_all_steps_without_a_codex() -> None:
    status, out, err = await _run("smoke", "--dry", "--json", env={"PATH": "/nonexistent"})
    assert (status, err) == (0, "")
    steps = _objects(out)
    assert [step["step"] for step in steps] == STEPS
    assert all(step["ok"] for step in steps)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["run", "--codex", "/nonexistent/codex", "hi"], 3, "does not exist"),
        (["probe", "--url", "unix:///nonexistent/a.sock"], 3, "no such socket"),
        (["probe", "--url", "http://x"], 2, "use ws://"),
        (["probe", "--url", "ws://127.0.0.1:1", "--token-file", "/nonexistent"], 2, "token-file"),
        (["run", "--config", "nonsense", "hi"], 2, "key=value"),
        (["run", "--cwd", "/nonexistent", "hi"], 2, "no directory"),
        (["run", "--timeout", "-1", "hi"], 2, "positive"),
        (["run", "--codex-home", "/tmp/home", "hi"], 2, "temp directory"),
        (["replay", "/nonexistent"], 2, "cannot read"),
        (["smoke", "--codex", "/nonexistent/codex"], 3, "does not exist"),
        (["smoke", "--scripted", "--codex", "/nonexistent/codex"], 3, "does not exist"),
        (["smoke", "--scripted", "--model", "x"], 2, "--model does not go with --scripted"),
        (["smoke", "--turn", "--url", "ws://[x"], 2, "url: "),
        (["smoke", "--scripted", "--live"], 2, "not allowed with"),
        (["smoke", "--dry", "--url", "ws://x"], 2, "--url does not go with --dry"),
        (["smoke", "--dry", "--codex", "x"], 2, "--codex does not go with --dry"),
        (["probe", "--token-file", "/x"], 2, "give its --url"),
        (["run", "--url", "ws://127.0.0.1:1", "--codex", "x", "hi"], 2, "--codex says how to"),
        (["run", "--url", "ws://127.0.0.1:1", "-c", "a=1", "hi"], 2, "--config says how to"),
        # Refused before anything starts: there is no such binary either.
        (["run", "--codex", "/nonexistent/codex", " "], 2, "the prompt is empty"),
        (["exec", "--codex", "/nonexistent/codex", "-"], 2, "the prompt is empty"),
        (["record", "--redact-env", "NO_SUCH", "x.jsonl", "hi"], 2, "--redact-env NO_SUCH"),
        (["replay", "--speed", "0", "x.jsonl"], 2, "'0' is no number above 0"),
        (["replay", "--speed", "nan", "x.jsonl"], 2, "'nan' is no number above 0"),
        ([], 2, "COMMAND"),
    ],
)
async def test_what_cannot_work_says_what_to_mend(
    words: Sequence[str], status: int, says: str
) -> None:
    if "--url" in words:
        pytest.importorskip("websockets", reason="needs the extra [websocket]")
    code, out, err = await _run(*words)
    assert (code, out) == (status, "")
    assert says in err
    assert "Traceback" not in err


async def test_a_prompt_of_stdin_may_have_any_bytes() -> None:
    words = ("run", "--codex", "/nonexistent/codex", "-")
    status, _, err = await _run(*words, input=b"caf\xe9")
    assert status == 3
    assert "Traceback" not in err


async def test_the_help_documents_every_exit_status() -> None:
    status, out, _ = await _run("--help")
    assert status == 0
    assert all(words in out for words in EXIT_CODES.values())


def _server(real: Any) -> list[str]:
    return ["--codex", str(real.binary)]


@pytest.mark.codex
async def test_probe_tells_version_and_methods(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    status, out, err = await _run("probe", "--json", *_server(real), env=real.env)
    (facts,) = _objects(out)
    assert (status, err) == (0, "")
    assert facts["version"].startswith("0.1")
    assert "thread/start" in facts["methods"]
    assert facts["codex_home"] == real.env["CODEX_HOME"]
    assert "refused" in facts["rate_limits"]


@pytest.mark.codex
async def test_run_prints_what_happens_and_its_status_tells_the_end(codex) -> None:
    real = await codex(
        A=turn(Exec("echo hi"), Say("All done.")), B=turn(Fail(400, "bad", times=None))
    )
    words = [*_server(real), "--cwd", str(real.workspace), *FREE]
    status, out, err = await _run("run", *words, "-", env=real.env, input=b"Issue: A")
    assert (status, err) == (0, "")
    assert "$ /bin/bash -lc 'echo hi'  (exit 0)\nAll done.\n-- completed" in out
    status, out, err = await _run("run", "--json", *words, "Issue: B", env=real.env)
    assert status == 1
    assert "turn failed" in err
    assert _objects(out)[-1]["method"] == "turn/completed"
    exec_words = [*_server(real), "--cwd", str(real.workspace), "--skip-git-repo-check", *FREE]
    status, out, _ = await _run("exec", *exec_words, "Issue: A", env=real.env)
    assert status == 0
    assert "All done.\n-- completed" in out


@pytest.mark.codex
async def test_a_recorded_session_is_replayed_without_the_server(codex, tmp_path: Path) -> None:
    real = await codex(A=turn(Exec("echo $TOP_SECRET"), Say("All done.")))
    secret = "hunter2-hunter2"
    env = {**real.env, "TOP_SECRET": secret}
    file = tmp_path / "session.jsonl"
    words = [*_server(real), "--cwd", str(real.workspace), *FREE, "--redact-env", "TOP_SECRET"]
    status, out, err = await _run("record", *words, str(file), "--", "Issue: A", env=env)
    assert (status, err) == (0, "")
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    status, again, err = await _run("replay", str(file), env={"PATH": "/nonexistent"})
    assert (status, err) == (0, "")
    assert again == out
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(file.read_bytes()[:-500] + b"\n")
    status, _, err = await _run("replay", str(cut))
    assert status == 2
    assert "line" in err


@pytest.fixture
def smoke_env(cache_dir: Path) -> dict[str, str]:
    """An environment of its own: no login, and a place for a private CODEX_HOME."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(cache_dir),
        "XDG_CACHE_HOME": str(cache_dir / "cache"),
    }


@pytest.mark.codex
async def test_the_scripted_smoke_passes_all_steps_and_leaves_nothing(
    codex_binary: Path, smoke_env: dict[str, str], commands_with: Any, tmp_path: Path
) -> None:
    marker = f"74{os.getpid()}.5"
    prompt = f"Run `sleep {marker}` in the shell, then reply done."
    words = ["--codex", str(codex_binary), "--cwd", str(tmp_path), "--prompt", prompt, "--json"]
    status, out, err = await _run("smoke", "--scripted", *words, env=smoke_env)
    assert (status, err) == (0, ""), out
    steps = {step["step"]: step["detail"] for step in _objects(out)}
    assert list(steps) == STEPS
    assert "goes on" in steps["resume"]
    # The processes were there and went while their server still ran.
    assert re.search(r"interrupted; its command \(process \d+\) is gone", steps["interrupt"])
    assert re.search(r"first: 'ok'; its command \(process \d+\) is gone", steps["preempt"])
    assert commands_with(marker) == []
    assert list((Path(smoke_env["XDG_CACHE_HOME"]) / "codex-app-server").iterdir()) == []


@pytest.mark.codex
async def test_the_smoke_passes_against_a_server_that_listens(newest_codex, tmp_path: Path) -> None:
    pytest.importorskip("websockets", reason="needs the extra [websocket]")
    real = await newest_codex()
    url = f"unix://{tmp_path}/codex.sock"
    async with ScriptedModel() as model:
        write_config(real.home, provider_config(model.base_url, model="gpt-5.5"))
        await real.spawn("app-server", "--listen", url)
        ready = await WebSocketTransport.connect(url, retry_for_s=20)
        await ready.aclose()
        words = ["--url", url, "--cwd", str(real.workspace), *FREE]
        status, out, err = await _run("smoke", *words, env={"PATH": "/nonexistent"})
    assert (status, err) == (0, ""), out
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in STEPS]
    # Its commands run on this machine, so their end is seen.
    assert out.count("is gone") == 2


@pytest.mark.codex
async def test_the_live_smoke_uses_the_login_of_the_user(
    codex_binary: Path, smoke_env: dict[str, str], tmp_path: Path
) -> None:
    home = prepare_home(Path(smoke_env["HOME"]) / ".codex", seed=False)
    words = ["--codex", str(codex_binary), "--cwd", str(tmp_path), *FREE, "--live"]
    async with ScriptedModel() as model:
        write_config(home, provider_config(model.base_url, model="gpt-5.5"))
        status, out, err = await _run("smoke", *words, env=smoke_env)
        assert (status, err) == (0, ""), out
        assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in STEPS]
        assert model.asked > 4
        # A model that runs nothing leaves nothing to interrupt.
        quick = ["--interrupt", "--prompt", "Say something."]
        status, out, err = await _run("smoke", *words, *quick, env=smoke_env)
    assert (status, err) == (1, "")
    assert out.startswith("FAILED interrupt the turn ended (turn/completed) before it ran")
    assert any(home.rglob("*.jsonl")), "its threads are the user's"
