"""ChatGPT logins of the real binaries against a stand-in for OpenAI's services; no network.

Codex takes the address of the login service from ``CODEX_APP_SERVER_LOGIN_ISSUER`` and that of
refreshes from ``CODEX_REFRESH_TOKEN_URL_OVERRIDE`` (0.163 and later; 0.125 knows one login service,
the real one, so there only what takes tokens from outside is tried), the account's backend from
``chatgpt_base_url``, and an authority to trust from ``CODEX_CA_CERTIFICATE``.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from codex_app_server import (
    ClientInfo,
    Connection,
    LoginFailed,
    RequestError,
    SubprocessTransport,
    TurnFailed,
)
from codex_app_server.accounts import ExternalTokens
from codex_app_server.home import prepare_home, provider_config, write_config

pytestmark = pytest.mark.codex
fake = runpy.run_path(str(Path(__file__).parent / "servers/fake_openai.py"))
token = fake["token"]
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
ACCOUNT, EMAIL = fake["ACCOUNT"], fake["EMAIL"]


@pytest.fixture
async def openai(authority: Any) -> AsyncIterator[Any]:
    async with fake["FakeOpenAI"](authority.server("DNS:localhost", "IP:127.0.0.1")) as server:
        yield server


@pytest.fixture
async def connection(
    codex_binary: Path, cache_dir: Path, openai: Any, authority: Any
) -> AsyncIterator[Connection]:
    """A real app-server that takes the stand-in for OpenAI."""
    home = prepare_home(cache_dir / "codex", seed=False)
    needs_login = {"requires_openai_auth": True, "request_max_retries": 0, "stream_max_retries": 0}
    settings = {
        "chatgpt_base_url": f"{openai.url}/backend-api",
        "cli_auth_credentials_store": "file",
        "analytics": {"enabled": False},
    }
    write_config(
        home,
        provider_config(
            f"{openai.url}/v1", model="gpt-5.5", provider_options=needs_login, settings=settings
        ),
    )
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(cache_dir),
        "CODEX_HOME": str(home),
        "CODEX_CA_CERTIFICATE": str(authority.file),
        "CODEX_APP_SERVER_LOGIN_ISSUER": openai.url,
        "CODEX_REFRESH_TOKEN_URL_OVERRIDE": f"{openai.url}/oauth/token",
        "CODEX_REVOKE_TOKEN_URL_OVERRIDE": f"{openai.url}/oauth/revoke",
    }
    argv = [str(codex_binary), "app-server"]
    transport = await SubprocessTransport.spawn(argv, cwd=cache_dir, env=env)
    async with await Connection.open(transport, ClientInfo("test", "1")) as opened:
        yield opened
    await transport.aclose()


@pytest.fixture
def login_service(codex_binary: Path) -> None:
    """Skips where the binary has the address of its login service built in."""
    if "0.125.0" in str(codex_binary):
        pytest.skip("0.125 logs in at the real service only")


async def visit(url: str, **answer: str) -> int:
    """Do what the browser does after the login page: go back to Codex, with an answer."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    back = f"{asked['redirect_uri']}?{urlencode({'state': asked['state'], **answer})}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get() -> int:
        with direct.open(back, timeout=20) as page:
            return int(page.status)

    return await asyncio.to_thread(get)


async def run_turn(connection: Connection, folder: Path) -> str | None:
    thread = await connection.start_thread(cwd=str(folder), **FREE)
    return (await thread.run("hello")).final_message


async def test_a_browser_login_is_refreshed_on_401_and_tells_the_rate_limits(
    login_service: None, callback_port: None, connection: Connection, openai: Any, cache_dir: Path
) -> None:
    account = connection.account
    async with connection.subscribe(methods=["account/updated"]) as updates:
        login = await account.login_chatgpt()
        assert login.url.startswith(f"{openai.url}/oauth/authorize?")
        assert await visit(login.url, code="code-of-browser") == 200
        await login.wait(30)
        assert (await updates.next(10)).data["authMode"] == "chatgpt"
    exchange = openai.requests("/oauth/token")[0].form
    assert (exchange["grant_type"], exchange["code"]) == ("authorization_code", "code-of-browser")
    read = (await account.read()).account
    assert (read.tag, read.email, read.plan_type) == ("chatgpt", EMAIL, "pro")
    limits = await account.rate_limits()
    assert limits is not None
    assert limits["primary"] == {
        "usedPercent": 42,
        "windowDurationMins": 300,
        "resetsAt": fake["RESETS"],
    }
    assert limits["credits"]["balance"] == "12.5"
    assert await run_turn(connection, cache_dir) == "Done."
    first = openai.requests("/responses")[-1]
    assert (first.bearer, first.account) == (token("issued-1"), ACCOUNT)
    openai.expired.add(first.bearer)
    assert await run_turn(connection, cache_dir) == "Done."
    refresh = openai.requests("/oauth/token")[-1].form
    assert (refresh["grant_type"], refresh["refresh_token"]) == ("refresh_token", "refresh-1")
    assert openai.requests("/responses")[-1].bearer not in openai.expired
    # The model's answers had no headers of limits: what was read stays.
    assert connection.rate_limits == limits
    await account.logout()
    assert openai.requests("/oauth/revoke")
    assert (await account.read()).account is None
    with pytest.raises(RequestError, match="authentication required"):
        await account.rate_limits()


async def test_a_browser_login_that_the_person_refuses_fails_with_the_reason(
    login_service: None, callback_port: None, connection: Connection, openai: Any
) -> None:
    login = await connection.account.login_chatgpt()
    assert await visit(login.url, error="access_denied", error_description="not today") == 200
    with pytest.raises(LoginFailed, match="not today"):
        await login.wait(30)
    assert openai.requests("/oauth/token") == []
    assert (await connection.account.read()).account is None


async def test_a_device_code_is_polled_until_the_person_has_typed_it(
    login_service: None, connection: Connection, openai: Any, cache_dir: Path
) -> None:
    openai.device += [403, 404]
    login = await connection.account.login_device_code()
    assert (login.url, login.user_code) == (f"{openai.url}/codex/device", "ABCD-1234")
    await login.wait(50)
    assert len(openai.requests("/deviceauth/token")) == 3
    assert openai.requests("/oauth/token")[0].form["code"] == "code-of-device"
    assert await run_turn(connection, cache_dir) == "Done."
    assert openai.requests("/responses")[-1].bearer == token("issued-1")


async def test_a_device_code_that_is_refused_or_given_up_is_a_failed_login(
    login_service: None, connection: Connection, openai: Any
) -> None:
    openai.refuses = True
    login = await connection.account.login_device_code()
    with pytest.raises(LoginFailed):
        await login.wait(50)
    openai.device += [403] * 1000
    waiting = await connection.account.login_device_code()
    began = asyncio.Event()

    async def wait() -> None:
        began.set()  # what follows runs up to its wait at once
        await waiting.wait(50)

    ended = asyncio.create_task(wait())
    await began.wait()
    await waiting.cancel()
    with pytest.raises(LoginFailed, match="cancelled"):
        await ended
    assert (await connection.account.read()).account is None


async def test_tokens_from_outside_are_refreshed_by_us_until_nobody_does(
    connection: Connection, openai: Any, cache_dir: Path
) -> None:
    reasons: list[str | None] = []

    async def source(reason: str | None) -> ExternalTokens:
        reasons.append(reason)
        return ExternalTokens(
            access_token=token(f"ours-{len(reasons)}"), account_id=ACCOUNT, plan="pro"
        )

    account = connection.account
    await account.login_tokens(source)
    limits = await account.rate_limits()
    assert limits is not None
    assert limits["primary"]["usedPercent"] == 42
    assert await run_turn(connection, cache_dir) == "Done."
    assert openai.requests("/responses")[-1].bearer == token("ours-1")
    openai.expired.add(token("ours-1"))
    assert await run_turn(connection, cache_dir) == "Done."
    assert openai.requests("/responses")[-1].bearer == token("ours-2")
    assert reasons == [None, "unauthorized"]
    account.answer_refreshes(None)
    openai.expired.add(token("ours-2"))
    with pytest.raises(TurnFailed, match="auth refresh request failed") as caught:
        await run_turn(connection, cache_dir)
    assert (caught.value.code, caught.value.retryable) == ("unauthorized", False)
    assert reasons == [None, "unauthorized"]
    assert not (cache_dir / "codex" / "auth.json").exists()
