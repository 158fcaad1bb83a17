"""Logins, tokens from outside and rate limits, against the scripted server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from codex_app_server.accounts import ExternalTokens
from codex_app_server.approvals import ServerRequestHandlers
from codex_app_server.errors import (
    ConnectionClosed,
    InvalidArgument,
    LoginFailed,
    RequestError,
    UnexpectedReply,
)

REFRESH = "account/chatgptAuthTokens/refresh"


def starts(server: Any, answer: dict[str, Any], *after: Any) -> None:
    server.answers["account/login/start"] = lambda m: [server.reply(m, answer), *after]
    server.answers["account/login/cancel"] = lambda m: [server.reply(m, {"status": "canceled"})]


def completed(**members: Any) -> dict[str, Any]:
    return {"method": "account/login/completed", "params": members}


async def test_an_api_key_is_sent_and_an_empty_one_refused(server, connect):
    starts(server, {"type": "apiKey"})
    connection = await connect()
    await connection.account.login_api_key("sk-1")
    sent = [one["params"] for one in server.requests("account/login/start")]
    assert sent == [{"type": "apiKey", "apiKey": "sk-1"}]
    with pytest.raises(InvalidArgument, match="empty"):
        await connection.account.login_api_key(" ")


async def test_the_key_of_the_environment_is_used_where_there_is_one(server, connect):
    starts(server, {"type": "apiKey"})
    connection = await connect()
    assert not await connection.account.login_from_environment({"OPENAI_API_KEY": "sk-1"})
    assert await connection.account.login_from_environment({"CODEX_API_KEY": "sk-2"})
    assert [one["params"]["apiKey"] for one in server.requests("account/login/start")] == ["sk-2"]


async def test_the_end_of_a_login_that_comes_with_the_reply_is_not_missed(server, connect):
    answer = {"type": "chatgpt", "loginId": "l", "authUrl": "https://x"}
    starts(
        server,
        answer,
        completed(loginId="other", success=False),
        completed(loginId="l", success=True),
    )
    connection = await connect()
    login = await connection.account.login_chatgpt()
    assert (login.url, login.user_code) == ("https://x", None)
    await login.wait(5)
    await login.cancel()
    assert server.requests("account/login/cancel") == []


async def test_a_device_code_login_that_is_refused_says_why(server, connect):
    answer = {
        "type": "chatgptDeviceCode",
        "loginId": "l",
        "verificationUrl": "https://x",
        "userCode": "A-1",
    }
    starts(server, answer, completed(loginId="l", success=False, error="denied by admin"))
    connection = await connect()
    login = await connection.account.login_device_code()
    assert login.user_code == "A-1"
    with pytest.raises(LoginFailed, match="denied by admin"):
        await login.wait(5)


async def test_a_login_that_nobody_finishes_is_cancelled(server, connect):
    starts(server, {"type": "chatgpt", "loginId": "l", "authUrl": "https://x"})
    connection = await connect()
    login = await connection.account.login_chatgpt()
    with pytest.raises(LoginFailed, match="in time"):
        await login.wait(0.01)
    assert server.requests("account/login/cancel")[0]["params"] == {"loginId": "l"}


async def test_leaving_the_block_of_a_login_cancels_it(server, connect):
    starts(server, {"type": "chatgpt", "loginId": "l", "authUrl": "https://x"})
    connection = await connect()
    async with await connection.account.login_chatgpt():
        pass
    assert len(server.requests("account/login/cancel")) == 1


async def test_cancelling_a_login_ends_who_waits_for_it(server, connect):
    starts(server, {"type": "chatgpt", "loginId": "l", "authUrl": "https://x"})
    connection = await connect()
    login = await connection.account.login_chatgpt()
    began = asyncio.Event()

    async def wait() -> None:
        began.set()  # what follows runs up to its wait at once
        await login.wait(None)

    waiting = asyncio.create_task(wait())
    await began.wait()
    await login.cancel()
    with pytest.raises(LoginFailed, match="cancelled"):
        await waiting


async def test_a_lost_connection_ends_a_login(server, connect):
    starts(server, {"type": "chatgpt", "loginId": "l", "authUrl": "https://x"})
    connection = await connect()
    login = await connection.account.login_chatgpt()
    server.end()
    with pytest.raises(ConnectionClosed):
        await login.wait(5)


async def test_a_login_without_an_address_is_an_unexpected_reply(server, connect):
    starts(server, {"type": "chatgpt", "loginId": "l"})
    connection = await connect()
    with pytest.raises(UnexpectedReply, match="account/login/start"):
        await connection.account.login_chatgpt()


def tokens(number: int) -> ExternalTokens:
    return ExternalTokens(access_token=f"secret-{number}", account_id="acc", plan="pro")


async def test_external_tokens_are_refreshed_until_that_is_switched_off(server, connect):
    starts(server, {"type": "chatgptAuthTokens"})
    reasons: list[str | None] = []

    async def source(reason: str | None) -> ExternalTokens:
        reasons.append(reason)
        return tokens(len(reasons))

    connection = await connect()
    await connection.account.login_tokens(source)
    assert server.requests("account/login/start")[0]["params"] == {
        "type": "chatgptAuthTokens",
        "accessToken": "secret-1",
        "chatgptAccountId": "acc",
        "chatgptPlanType": "pro",
    }
    server.feed({"id": 0, "method": REFRESH, "params": {"reason": "unauthorized"}})
    assert (await server.replied(0))["result"]["accessToken"] == "secret-2"
    assert reasons == [None, "unauthorized"]
    connection.account.answer_refreshes(None)
    server.feed({"id": 1, "method": REFRESH, "params": {"reason": "unauthorized"}})
    assert "error" in await server.replied(1)


async def test_without_automatic_refresh_the_handlers_answer(server, connect):
    starts(server, {"type": "chatgptAuthTokens"})

    async def by_hand(request: Any) -> Any:
        return {"accessToken": "by hand", "chatgptAccountId": "acc"}

    async def source(reason: str | None) -> ExternalTokens:
        return tokens(1)

    connection = await connect(handlers=ServerRequestHandlers(token_refresh=by_hand))
    await connection.account.login_tokens(source, auto_refresh=False)
    server.feed({"id": 0, "method": REFRESH, "params": {"reason": "unauthorized"}})
    assert (await server.replied(0))["result"]["accessToken"] == "by hand"


async def test_a_source_that_fails_refuses_the_refresh(server, connect):
    starts(server, {"type": "chatgptAuthTokens"})

    async def source(reason: str | None) -> ExternalTokens:
        if reason is not None:
            raise OSError("the vault is closed")
        return tokens(1)

    connection = await connect()
    await connection.account.login_tokens(source)
    server.feed({"id": 0, "method": REFRESH, "params": {"reason": "unauthorized"}})
    assert "the vault is closed" in (await server.replied(0))["error"]["message"]


def test_tokens_do_not_show_in_their_text():
    assert "secret" not in repr(tokens(1))


async def test_rate_limits_that_are_read_are_merged_with_those_that_were_told(server, connect):
    answer = {
        "rateLimits": {"limitId": "codex", "primary": {"usedPercent": 50, "resetsAt": 9}},
        "rateLimitsByLimitId": {"other": {"limitId": "other", "primary": {"usedPercent": 1}}},
    }
    server.answers["account/rateLimits/read"] = lambda m: [server.reply(m, answer)]
    connection = await connect()
    connection.merge_rate_limits(
        {"limitId": "codex", "planType": "pro", "primary": {"usedPercent": 1}}
    )
    limits = await connection.account.rate_limits()
    assert limits == connection.rate_limits
    assert limits == {
        "limitId": "codex",
        "planType": "pro",
        "primary": {"usedPercent": 50, "resetsAt": 9},
    }


async def test_rate_limits_without_a_login_are_a_refusal(server, connect):
    server.answers["account/rateLimits/read"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": "authentication required"}}
    ]
    connection = await connect()
    with pytest.raises(RequestError, match="authentication required"):
        await connection.account.rate_limits()


async def test_what_is_no_key_and_no_source_of_tokens_is_refused(server, connect):
    account = (await connect()).account
    with pytest.raises(InvalidArgument, match="key: give a text, not int"):
        await account.login_api_key(5)
    with pytest.raises(InvalidArgument, match="source: give ExternalTokens"):
        await account.login_tokens("token")
    assert server.requests("account/login/start") == []
