"""Accounts: logins through the server's own flows, tokens from outside, usage and rate limits.

Invariants: the end of a login cannot be missed (it is listened for before the login starts); a
login whose block is left early is cancelled; keys and tokens are in no text of this module's
errors. The server keeps what it is given in its CODEX_HOME, but external tokens in memory only.

Made by `codex_app_server.api`; the requests are `codex_app_server.protocol.requests.Account`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import UNSET, Struct, UnsetType

from codex_app_server.approvals import ServerRequestInfo
from codex_app_server.checks import (
    FLAG,
    FUNCTION,
    LIMIT,
    TABLE,
    TEXT,
    check_secrets,
    check_values,
    optional,
)
from codex_app_server.errors import CodexError, InvalidArgument, LoginFailed, UnexpectedReply
from codex_app_server.protocol import requests
from codex_app_server.protocol import types as t
from codex_app_server.subscriptions import Subscription

if TYPE_CHECKING:
    from codex_app_server.connection import Connection

__all__ = ["AccountApi", "ExternalTokens", "Login", "TokenSource"]

KEY_VARIABLE = "CODEX_API_KEY"
LOGIN_S = 900.0


class ExternalTokens(Struct, frozen=True, kw_only=True):
    """Tokens of a ChatGPT login that somebody else manages.

    Attributes:
        access_token: A JWT.
        account_id: Of the workspace.
        plan: Such as ``pro``; without it the server reads it out of the token.
    """

    access_token: str
    account_id: str
    plan: str | None = None

    def __post_init__(self) -> None:
        check_secrets(access_token=(self.access_token, TEXT))
        check_values(account_id=(self.account_id, TEXT), plan=(self.plan, optional(TEXT)))

    def __repr__(self) -> str:
        return f"ExternalTokens(account_id={self.account_id!r}, plan={self.plan!r})"

    def members(self) -> dict[str, Any]:
        """Return them as the protocol has them."""
        tokens = {"accessToken": self.access_token, "chatgptAccountId": self.account_id}
        return tokens if self.plan is None else {**tokens, "chatgptPlanType": self.plan}


TokenSource = Callable[[str | None], Awaitable[ExternalTokens]]
"""``await source(reason)`` returns fresh tokens; ``reason`` is None at the first login, then the
server's, such as ``unauthorized``."""


class Login:
    """A login that a person finishes in a browser. Await `wait`; leaving the block cancels it.

    Attributes:
        login_id: Of the server.
        url: To open in a browser.
        user_code: To type there (device code), or None.
    """

    def __init__(
        self,
        api: AccountApi,
        events: Subscription,
        *,
        login_id: str,
        url: str,
        user_code: str | None,
    ) -> None:
        self.login_id = login_id
        self.url = url
        self.user_code = user_code
        self._api = api
        self._events = events
        self._ended = False

    async def wait(self, timeout_s: float | None = LOGIN_S) -> None:
        """Wait until the person is done.

        Raises:
            LoginFailed: Refused, cancelled, or out of time (it is cancelled then).
            ConnectionClosed: The server is gone.
        """
        check_values(timeout_s=(timeout_s, LIMIT))
        if self._ended:
            raise LoginFailed("this login has ended", self.login_id)
        try:
            while True:
                data = (await self._events.next(timeout_s)).data
                if data.get("loginId") in (self.login_id, None):
                    break
        except TimeoutError:
            await self.cancel()
            raise LoginFailed("nobody finished it in time", self.login_id) from None
        except StopAsyncIteration:
            raise LoginFailed("it was cancelled", self.login_id) from None
        self._end()
        if not data.get("success"):
            raise LoginFailed(str(data.get("error") or "refused"), self.login_id)

    async def cancel(self) -> None:
        """Give it up; does nothing when it has ended.

        Raises:
            CodexError: As for `Connection.call_raw`.
        """
        if not self._ended:
            self._end()
            await self._api.cancel_login(self.login_id)

    def _end(self) -> None:
        self._ended = True
        self._events.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(CodexError):
            await self.cancel()


class AccountApi(requests.Account):
    """Account, logins, usage and rate limits."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection, ask: requests.Ask) -> None:
        super().__init__(ask)
        self._connection = connection

    async def login_api_key(self, key: str, *, timeout_s: float | None = None) -> None:
        """Log in with an API key; the server keeps it in its CODEX_HOME.

        Raises:
            InvalidArgument: An empty key, or no text.
            CodexError: As for `Connection.call_raw`.
        """
        if not isinstance(key, str):
            raise InvalidArgument(f"key: give a text, not {type(key).__name__}")
        if not key.strip():
            raise InvalidArgument("key: an empty API key")
        await self.start_login(t.ApiKeyLoginAccountParams(api_key=key), timeout_s=timeout_s)

    async def login_from_environment(
        self, environment: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> bool:
        """Log in with the API key in ``CODEX_API_KEY``, as ``codex exec`` does by itself.

        Args:
            environment: This process' by default.
            timeout_s: Deadline; the connection's by default.

        Returns:
            Whether there was a key.

        Raises:
            CodexError: As for `login_api_key`.
        """
        check_values(environment=(environment, optional(TABLE)), timeout_s=(timeout_s, LIMIT))
        key = (os.environ if environment is None else environment).get(KEY_VARIABLE, "").strip()
        if key:
            await self.login_api_key(key, timeout_s=timeout_s)
        return bool(key)

    async def login_chatgpt(self, *, timeout_s: float | None = None) -> Login:
        """Start a login in the browser; the server waits for it on a port of its host.

        Raises:
            UnexpectedReply: The server gave no address.
            CodexError: As for `Connection.call_raw`.
        """
        return await self._start(t.ChatgptLoginAccountParams(), timeout_s)

    async def login_device_code(self, *, timeout_s: float | None = None) -> Login:
        """Start a login with a code to type in any browser; for hosts without one.

        Raises:
            UnexpectedReply: The server gave no code.
            CodexError: As for `Connection.call_raw`.
        """
        return await self._start(t.ChatgptDeviceCodeLoginAccountParams(), timeout_s)

    async def login_tokens(
        self,
        source: TokenSource | ExternalTokens,
        *,
        auto_refresh: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        """Log in with tokens that somebody else manages; the server keeps them in memory.

        Args:
            source: Asked for tokens now, and again whenever the server wants fresh ones; fixed
                tokens cannot be refreshed.
            auto_refresh: Answer the server's ``account/chatgptAuthTokens/refresh``. Off, that
                is the work of ``ServerRequestHandlers.token_refresh``.
            timeout_s: Deadline of the login; the connection's by default.

        Raises:
            InvalidArgument: A source that is neither.
            CodexError: As for `Connection.call_raw`; what ``source`` raises passes through.
        """
        if not isinstance(source, ExternalTokens) and not callable(source):
            raise InvalidArgument("source: give ExternalTokens or a function that returns them")
        check_values(auto_refresh=(auto_refresh, FLAG), timeout_s=(timeout_s, LIMIT))
        tokens = source if isinstance(source, ExternalTokens) else await source(None)
        params = {"type": "chatgptAuthTokens", **tokens.members()}
        await self.start_login(params, timeout_s=timeout_s)
        if auto_refresh and not isinstance(source, ExternalTokens):
            self.answer_refreshes(source)

    def answer_refreshes(self, source: TokenSource | None) -> None:
        """Answer the server's wish for fresh tokens from a source; None stops that."""
        check_values(source=(source, optional(FUNCTION)))
        if source is None:
            self._connection.set_token_refresh(None)
            return

        async def refresh(request: ServerRequestInfo) -> dict[str, Any]:
            reason = request.params.get("reason")
            return (await source(reason if isinstance(reason, str) else None)).members()

        self._connection.set_token_refresh(refresh)

    async def rate_limits(self, *, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Read the rate limits and merge them into `Connection.rate_limits`, which is returned.

        Raises:
            RequestError: Without a ChatGPT login the server has none.
        """
        answer = await self._connection.call(
            "account/rateLimits/read", timeout_s=timeout_s, idempotent=True
        )
        found = answer if isinstance(answer, dict) else {}
        several = found.get("rateLimitsByLimitId")
        for one in several.values() if isinstance(several, dict) else ():
            self._connection.merge_rate_limits(one)
        self._connection.merge_rate_limits(found.get("rateLimits"))
        return self._connection.rate_limits

    async def usage(
        self, thread_id: str | UnsetType = UNSET, *, timeout_s: float | None = None
    ) -> t.GetAccountTokenUsageResponse:
        """Read the account's token usage, and a thread's."""
        return await self.read_usage(thread_id=thread_id, timeout_s=timeout_s)

    async def _start(self, params: t.LoginAccountParams, timeout_s: float | None) -> Login:
        events = self._connection.subscribe(methods=["account/login/completed"], limit=16)
        try:
            answer = await self.start_login(params, timeout_s=timeout_s)
            match answer:
                case t.ChatgptLoginAccountResponse(login_id=str(login), auth_url=str(url)):
                    return Login(self, events, login_id=login, url=url, user_code=None)
                case t.ChatgptDeviceCodeLoginAccountResponse(
                    login_id=str(login), verification_url=str(url), user_code=str(code)
                ):
                    return Login(self, events, login_id=login, url=url, user_code=code)
            raise UnexpectedReply("account/login/start", "no login id and address")
        except BaseException:
            events.close()
            raise
