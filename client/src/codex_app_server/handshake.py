"""The first exchange: who we are, what the server says of itself.

Invariant: experimental methods are asked for and given up where the server refuses them; the
version is read out of the user agent, the only place where the server tells it. Called by
`codex_app_server.connection`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from codex_app_server.checks import TEXT, WORDS, check_values, optional
from codex_app_server.errors import RequestError

__all__ = ["ClientInfo", "ServerInfo", "initialize"]

_USER_AGENT = re.compile(r"/(\d+\.\d+\.\d+\S*) ")
Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class ClientInfo(Struct, frozen=True):
    """Who we are, for the server's logs and user agent.

    Raises:
        InvalidArgument: No text, or an empty name or version.
    """

    name: str
    version: str
    title: str | None = None

    def __post_init__(self) -> None:
        check_values(
            name=(self.name, TEXT),
            version=(self.version, TEXT),
            title=(self.title, optional(WORDS)),
        )


class ServerInfo(Struct, frozen=True):
    """What the server says of itself.

    Attributes:
        user_agent: As received.
        version: Of Codex, parsed out of it; None where it cannot be.
        codex_home: Its CODEX_HOME, or None.
        platform_family: Such as ``unix``, or None.
        platform_os: Such as ``linux``, or None.
        experimental: Whether experimental methods and members may be used.
    """

    user_agent: str
    version: str | None
    codex_home: str | None
    platform_family: str | None
    platform_os: str | None
    experimental: bool


async def initialize(
    call: Call, client: ClientInfo, *, experimental: bool, opt_out: Sequence[str]
) -> ServerInfo:
    """Call ``initialize``, once more without the experimental capability where that is refused.

    Raises:
        RequestError: The server refused.
    """
    info = {"name": client.name, "version": client.version}
    if client.title is not None:
        info["title"] = client.title
    capabilities: dict[str, Any] = {}
    if opt_out:
        capabilities["optOutNotificationMethods"] = list(opt_out)
    if experimental:
        wanted = {**capabilities, "experimentalApi": True}
        try:
            reply = await call("initialize", {"clientInfo": info, "capabilities": wanted})
        except RequestError:
            experimental = False
        else:
            return _server_info(reply, experimental)
    reply = await call("initialize", {"clientInfo": info, "capabilities": capabilities})
    return _server_info(reply, experimental)


def _server_info(reply: Any, experimental: bool) -> ServerInfo:
    facts = reply if isinstance(reply, dict) else {}

    def text(name: str) -> str | None:
        value = facts.get(name)
        return value if isinstance(value, str) else None

    user_agent = text("userAgent") or ""
    # "<client name>/<version> (<system>) ...": the name may hold blanks and slashes.
    match = _USER_AGENT.search(user_agent + " ")
    return ServerInfo(
        user_agent=user_agent,
        version=match[1] if match else None,
        codex_home=text("codexHome"),
        platform_family=text("platformFamily"),
        platform_os=text("platformOs"),
        experimental=experimental,
    )
