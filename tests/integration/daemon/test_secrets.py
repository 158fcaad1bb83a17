"""Nothing that a daemon writes, answers or starts holds a secret; a webhook wakes its poll."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from github_server import Fault, GitHubServer
from tracker_worlds import REMOTE, open_harness

from .conftest import Place

TOKEN = "ghp_0a1B2c3D4e5F6g7H8i9J"
WEBHOOK_SECRET = "whk-9Z8y7X6w5V4u3T2s1R0q"
COMMENT = {"method": "POST", "path": "/repos/octo/demo/issues/1/comments", "body": {"body": "Hi"}}


def prepare(place: Place, api_url: str, interval_ms: int = 600_000) -> None:
    provider = {"repo": "octo/demo", "token": "$OUR_TOKEN", "api_url": api_url}
    place.environ |= {"OUR_TOKEN": TOKEN, "OUR_HOOK": WEBHOOK_SECRET}
    # A login profile that sets them again must not help an agent or a hook.
    profile = f"export OUR_TOKEN={TOKEN} OUR_HOOK={WEBHOOK_SECRET}\n"
    home = Path(place.environ["HOME"])
    (home / ".profile").write_text(profile)
    place.configure(
        tracker={
            "kind": "github",
            "provider": provider,
            "active_states": ["open"],
            "terminal_states": ["closed"],
        },
        polling={"interval_ms": interval_ms},
        hooks={"before_run": "env >> ../../hook-environment.txt"},
        webhooks={"secret": "$OUR_HOOK"},
    )
    place.script(turns=[[{"tool": "github_api", "arguments": COMMENT}, {"hang": True}]])


def post(url: str, body: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, headers=named, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def holders(place: Place, secret: str) -> list[str]:
    """Return the files below the place that hold a secret, the profile of the user apart."""
    files = [path for path in place.root.rglob("*") if path.is_file() and path.name != ".profile"]
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


async def test_no_secret_gets_out_of_the_daemon(place: Place) -> None:
    async with GitHubServer() as server:
        server.token = TOKEN
        server.add(1)
        prepare(place, server.url)
        await place.start("--port", "0")
        await place.until(lambda: "changing the tracker" in str(place.get("/api/v1/GH-1")))
        url = re.search(r"url=(http://\S+?)/? ", place.log())
        assert url is not None
        hook = f"{url[1]}/api/v1/webhooks/github"

        # The next poll is ten minutes away: only the delivery can bring this issue.
        server.add(2)
        digest = hmac.new(WEBHOOK_SECRET.encode(), b"{}", hashlib.sha256).hexdigest()
        assert (
            await place.until(lambda: post(hook, b"{}", X_Hub_Signature_256=f"sha256={digest}"))
            == 202
        )
        await place.until(lambda: "GH-2" in place.rows("running"))
        assert await place.until(lambda: post(hook, b"{}", X_Hub_Signature_256="sha256=0")) == 401

        # A provider that repeats the token in its answers must not make us repeat it.
        echo = f'{{"message": "Bad credentials: {TOKEN}"}}'.encode()
        fault = Fault(status=403, body=echo)
        server.faults.extend([fault] * 3)
        assert await place.until(lambda: post(f"{url[1]}/api/v1/refresh", b"")) == 202
        problems = await place.until(lambda: problems_of(place, "tracker", "webhooks"))
        state = await place.until(place.state)
        answers = [state, place.get("/api/v1/GH-1"), place.get("/api/v1/GH-2")]
        assert await place.stop() == 0

    assert "1 webhook deliveries were rejected" in problems["webhooks"]
    assert "Bad credentials" in problems["tracker"]
    assert state["tracker"]["kind"] == "github"
    assert state["tracker"]["requests"] >= 2
    assert "POST /repos/octo/demo/issues/1/comments" in str(answers)
    for secret in (TOKEN, WEBHOOK_SECRET):
        assert secret not in str(answers)
        assert holders(place, secret) == []
    # What was searched is what the daemon, its agents and its hooks wrote.
    for written in ("GH-1", "HOME="):
        assert holders(place, written) != []
    assert any(name.endswith("ledger.sqlite3") for name in holders(place, "GH-1"))
    assert any(name.endswith("symphony.log") for name in holders(place, "GH-1"))
    assert all("OUR_TOKEN" not in start["env"] for start in place.starts())
    assert all("OUR_HOOK" not in start["env"] for start in place.starts())


@pytest.mark.parametrize("kind", REMOTE)
async def test_a_provider_that_repeats_the_token_is_not_repeated(place: Place, kind: str) -> None:
    async with open_harness(kind, place.root) as world:
        token = world.server.token
        world.put(1, title=f"Rotate {token} soon")
        # States that are labels must be there when the daemon starts.
        world.put(2, state="In Progress", blocked_by=[])
        world.put(3, state="Done")
        place.environ |= world.environ
        place.configure(tracker=world.section, polling={"interval_ms": 300})
        place.script(turns=[[{"hang": True}]])
        await place.start()
        name = world.identifier.format(1)
        await place.until(lambda: name in place.rows("running"))

        # Once as a refusal, once among the errors of an answer that looks like success.
        echoes = [
            (403, {"message": f"refused: {token}", "errorMessages": [f"refused: {token}"]}),
            (200, {"errors": [{"message": f"refused: {token}"}]}),
        ]
        said = []
        for status, body in echoes:
            world.server.faults.extend(
                Fault(status=status, body=json.dumps(body).encode()) for _ in range(9)
            )
            problems = await place.until(lambda: problems_of(place, "tracker"))
            said.append(problems["tracker"])
            world.server.faults.clear()
            await place.until(lambda: not problems_of(place, "tracker"))
        answers = [place.state(), place.get(f"/api/v1/{name}")]
        answers.append(place.command("explain", name, status=1))
        assert await place.stop() == 0
    if kind != "asana":  # a project that is refused is told in our own words there
        assert "[redacted]" in said[0]
    assert "Rotate [redacted] soon" in str(answers)
    assert token not in str([*said, *answers])
    assert holders(place, token) == []
    # What was searched is what the daemon and its agents wrote.
    for written in ("symphony.log", "ledger.sqlite3", "stderr.txt"):
        assert any(path.endswith(written) for path in holders(place, name))


def problems_of(place: Place, *names: str) -> dict[str, str] | None:
    problems: dict[str, str] = (place.state() or {}).get("problems") or {}
    return problems if all(problems.get(name) for name in names) else None


BROKEN_LIBRARIES = """
import os, threading
import uvicorn, watchfiles

token = os.environ.get("OUR_TOKEN", "")

async def serve(self, sockets=None):
    def end():
        raise ValueError(f"a thread that holds {token}")
    thread = threading.Thread(target=end, name="a thread of a library")
    thread.start()
    thread.join()
    raise RuntimeError(f"a server that prints {token}")

def awatch(*paths, **options):
    raise LookupError(f"a watch that prints {token}")

uvicorn.Server.serve = serve
watchfiles.awatch = awatch
"""


async def test_a_crash_shows_no_secret(place: Place) -> None:
    libraries = place.root / "libraries"
    libraries.mkdir()
    (libraries / "sitecustomize.py").write_text(BROKEN_LIBRARIES)
    async with GitHubServer() as server:
        server.token = TOKEN
        server.add(1)
        prepare(place, server.url)
        place.environ["PYTHONPATH"] = str(libraries)
        with (place.root / "stderr.txt").open("ab") as log:
            daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "symphony", str(place.workflow)),
                *("--instance", place.instance),
                env=place.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        place.daemons.append(daemon)
        assert await daemon.wait() == 1
    for line in (
        "LookupError: a watch that prints [redacted]",
        "RuntimeError: a server that prints [redacted]",
        "ValueError: a thread that holds [redacted]",
    ):
        assert any(name.endswith("symphony.log") for name in holders(place, line))
    assert holders(place, TOKEN) == []


async def test_a_dump_of_a_dead_daemon_holds_no_secret(place: Place) -> None:
    async with GitHubServer() as server:
        server.token = TOKEN
        server.add(1)
        prepare(place, server.url)
        place.environ["PYTHONFAULTHANDLER"] = "1"
        daemon = await place.start()
        await place.until(lambda: "GH-1" in place.rows("running"))
        limits = await asyncio.to_thread(Path(f"/proc/{daemon.pid}/limits").read_text)
        assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)
        daemon.send_signal(signal.SIGSEGV)
        assert await daemon.wait() == -signal.SIGSEGV
    assert any(name.endswith("stderr.txt") for name in holders(place, "Fatal Python error"))
    for secret in (TOKEN, WEBHOOK_SECRET):
        assert holders(place, secret) == []


async def test_the_terminal_view_shows_no_secret(place: Place) -> None:
    async with GitHubServer() as server:
        server.token = TOKEN
        server.add(1, title=f"Rotate {TOKEN} soon")
        prepare(place, server.url, interval_ms=300)
        place.environ["TERM"] = "xterm-256color"
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        shown = place.root / "terminal.txt"
        reader = threading.Thread(target=_copy, args=(leader, shown), name="terminal")
        reader.start()
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "symphony", str(place.workflow)),
            *("--instance", place.instance),
            env=place.environ,
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        place.daemons.append(daemon)
        await place.until(place.state)
        await place.until(lambda: b"GH-1" in shown.read_bytes())
        server.faults.extend(
            Fault(status=403, body=f"Bad credentials: {TOKEN}".encode()) for _ in range(9)
        )
        await place.until(lambda: b"Bad credentials" in shown.read_bytes())
        server.faults.clear()
        assert await place.stop() == 0
        await asyncio.to_thread(reader.join)
    assert holders(place, TOKEN) == []


def _copy(leader: int, to: Path) -> None:
    """Keep what a terminal is sent, until its other end is closed."""
    with to.open("wb", buffering=0) as file:
        while True:
            try:
                data = os.read(leader, 65_536)
            except OSError:
                data = b""
            if not data:
                os.close(leader)
                return
            file.write(data)
