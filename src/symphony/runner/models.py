"""Which model a turn asks for, and how hard it is to think.

Codex keeps what a turn asked for, for all later turns of the thread and for whoever resumes it. So
where some profile names a model and the issue's own does not, Codex's configured one is asked for
by name; where no profile and no setting names one, nothing is sent at all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import codex_app_server as codex

from symphony.config.settings import Settings
from symphony.model.issue import Issue

_log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """What is sent with a turn; None: nothing, the thread keeps what it has."""

    model: str | None = None
    effort: str | None = None


def named(settings: Settings, issue: Issue) -> Choice:
    """Return what the issue's profile and the settings name."""
    profile = settings.agent.profile_of(issue)
    model = None if profile is None else profile.model
    effort = None if profile is None else profile.reasoning_effort
    return Choice(model or settings.codex.model, effort or settings.codex.reasoning_effort)


class Models:
    """Chooses for the turns of one session."""

    def __init__(self, connection: codex.Connection) -> None:
        self._connection = connection
        self._defaults: Mapping[str, Any] | None = None
        self._listed: list[Mapping[str, Any]] | None = None

    async def choose(self, settings: Settings, issue: Issue) -> Choice:
        """Return what the next turn asks for."""
        model, effort = named(settings, issue)
        profiles = settings.agent.profiles
        if model is None and any(profile.model for profile in profiles):
            model = await self._default_model()
        if effort is None and any(profile.reasoning_effort for profile in profiles):
            effort = await self._default_effort(model)
        return Choice(model, effort)

    async def _default_model(self) -> str | None:
        configured = (await self._configured()).get("model")
        if isinstance(configured, str) and configured:
            return configured
        marked = (one for one in await self._models() if one.get("isDefault"))
        return next((_text(one.get("model")) for one in marked), None)

    async def _default_effort(self, model: str | None) -> str | None:
        configured = (await self._configured()).get("model_reasoning_effort")
        if isinstance(configured, str) and configured:
            return configured
        meant = (one for one in await self._models() if one.get("model") == model)
        return next((_text(one.get("defaultReasoningEffort")) for one in meant), None)

    async def _configured(self) -> Mapping[str, Any]:
        if self._defaults is None:
            reply = await self._ask("config/read")
            config = reply.get("config")
            self._defaults = config if isinstance(config, Mapping) else {}
        return self._defaults

    async def _models(self) -> list[Mapping[str, Any]]:
        if self._listed is None:
            data = (await self._ask("model/list")).get("data")
            listed = data if isinstance(data, list) else []
            self._listed = [one for one in listed if isinstance(one, Mapping)]
        return self._listed

    async def _ask(self, method: str) -> Mapping[str, Any]:
        """Ask Codex; a server that does not tell a version may know four requests and no more."""
        if self._connection.server.version is None:
            return {}
        try:
            reply = await self._connection.call(method, {})
        except codex.ConnectionClosed:
            raise
        except codex.CodexError as error:
            _log.warning("Codex does not tell its defaults", extra={"error": str(error)})
            return {}
        return reply if isinstance(reply, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
