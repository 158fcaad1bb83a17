"""Nothing that a daemon writes, answers or starts holds a secret; a webhook wakes its poll."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import re
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from .conftest import Place

TOKEN = "ghp_0a1B2c3D4e5F6g7H8i9J"
WEBHOOK_SECRET = "whk-9Z8y7X6w5V4u3T2s1R0q"
COMMENT = {"method": "POST", "path": "/repos/octo/demo/issues/1/comments", "body": {"body": "Hi"}}


def load_fake(name: str) -> Any:
    path = Path(__file__).parents[2] / "fakes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fakes_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(place: Place, api_url: str) -> None:
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
        polling={"interval_ms": 600_000},
        hooks={"before_run": "env > ../../hook-environment.txt"},
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
    fakes = load_fake("github_server")
    async with fakes.GitHubServer() as server:
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
        fault = fakes.Fault(status=403, body=echo)
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


def problems_of(place: Place, *names: str) -> dict[str, str] | None:
    problems: dict[str, str] = (place.state() or {}).get("problems") or {}
    return problems if all(problems.get(name) for name in names) else None
