"""The wide API: every request of the protocol as a typed method of a connection, by family.

    models = await connection.models.list(limit=25)
    async for thread in connection.threads.iterate(archived=False):
        print(thread.id, thread.preview)

Invariant: nothing of it is imported before it is used; the generated modules cost some 50 ms. What
has no method here is reached by ``connection.call(method, params)``.

`codex_app_server.connection` inherits this; the methods are in
`codex_app_server.protocol.requests`, with additions in `codex_app_server.accounts` and
`codex_app_server.extras`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

from codex_app_server.checks import check_values, is_text
from codex_app_server.errors import RequestError
from codex_app_server.handshake import ServerInfo
from codex_app_server.subscriptions import (
    DEFAULT_LIMIT,
    DropPolicy,
    Subscription,
    Subscriptions,
)
from codex_app_server.versions import PROBE, Capabilities, known_methods

if TYPE_CHECKING:
    from codex_app_server.accounts import AccountApi
    from codex_app_server.connection import Connection
    from codex_app_server.extras import CommandsApi, FilesApi, SkillsApi
    from codex_app_server.protocol import requests
    from codex_app_server.protocol import types as t
    from codex_app_server.subagents import SubAgents
    from codex_app_server.threads import Thread

__all__ = ["WideApi"]


class WideApi:
    """The families of requests as attributes; a base of `Connection`.

    Attributes:
        server: What the server says of itself.
    """

    server: ServerInfo
    _subscriptions: Subscriptions
    _known: Capabilities | None = None

    @property
    def _connection(self) -> Connection:
        return cast("Connection", self)

    @cached_property
    def _ask(self) -> requests.Ask:
        from codex_app_server.asking import Asker

        return Asker(self._connection.call_raw, self.server)

    async def capabilities(self, *, timeout_s: float | None = None) -> Capabilities:
        """Ask which methods the server knows: it lists them when it refuses one. Asked once.

        Raises:
            RequestTimeout: No reply.
            ConnectionClosed: The server is gone.
        """
        if self._known is None:
            methods = None
            try:
                await self._connection.call_raw(PROBE, {}, timeout_s=timeout_s)
            except RequestError as refusal:
                methods = known_methods(refusal.message)
            self._known = Capabilities(self.server.version, self.server.experimental, methods)
        return self._known

    def subscribe(
        self,
        *,
        thread_id: str | None = None,
        methods: Iterable[str] | None = None,
        limit: int = DEFAULT_LIMIT,
        drop: DropPolicy = "coalesce",
    ) -> Subscription:
        """Listen to notifications beside the turns; from now on, until it is closed.

        Args:
            thread_id: Only those of this thread; None for all, also those of no thread.
            methods: Only these; None for all.
            limit: Events that may wait for the reader.
            drop: What happens over the limit: ``coalesce`` merges the deltas of an item,
                ``drop_deltas`` drops deltas (both keep all other events), ``drop_oldest`` drops
                the oldest events whatever they are.

        Raises:
            InvalidArgument: A limit below 1, an unknown policy, or methods that are one string.
            ConnectionClosed: The connection has ended: nothing would ever come.
        """
        self._connection.check_open()
        return self._subscriptions.add(thread_id, methods, limit, drop)

    def subagents(self, thread: Thread | str) -> SubAgents:
        """Return the view on the sub-agents of a thread.

        Raises:
            InvalidArgument: Neither a thread nor an id.
        """
        from codex_app_server.subagents import SubAgents

        thread_id = thread if isinstance(thread, str) else getattr(thread, "id", None)
        fits = is_text(thread_id)
        check_values(thread=(thread, ("a Thread, or a thread's id", lambda _: fits)))
        return SubAgents(self._connection, str(thread_id))

    async def fuzzy_file_search(
        self, query: str, roots: Sequence[str], *, timeout_s: float | None = None
    ) -> list[t.FuzzyFileSearchResult]:
        """Find files by parts of their names, the best first.

        Args:
            query: Some letters of a path.
            roots: Directories on the server's host.
            timeout_s: Deadline; the connection's by default.

        Raises:
            CodexError: As for `Connection.call_raw`.
        """
        answer = await self.file_search.search(query, roots, timeout_s=timeout_s)
        return answer.files or []

    @cached_property
    def account(self) -> AccountApi:
        """Account, logins, usage and rate limits."""
        from codex_app_server.accounts import AccountApi

        return AccountApi(self._connection, self._ask)

    @cached_property
    def account_sessions(self) -> requests.AccountSessions:
        """Saved sessions of the account."""
        from codex_app_server.protocol import requests

        return requests.AccountSessions(self._ask)

    @cached_property
    def apps(self) -> requests.Apps:
        """Connectors."""
        from codex_app_server.protocol import requests

        return requests.Apps(self._ask)

    @cached_property
    def attachments(self) -> requests.Attachments:
        """What is attached to threads."""
        from codex_app_server.protocol import requests

        return requests.Attachments(self._ask)

    @cached_property
    def collaboration_modes(self) -> requests.CollaborationModes:
        """Presets of collaboration modes."""
        from codex_app_server.protocol import requests

        return requests.CollaborationModes(self._ask)

    @cached_property
    def commands(self) -> CommandsApi:
        """Commands in the server's sandbox, outside any thread."""
        from codex_app_server.extras import CommandsApi

        return CommandsApi(self._connection, self._ask)

    @cached_property
    def config(self) -> requests.Config:
        """The configuration and its layers."""
        from codex_app_server.protocol import requests

        return requests.Config(self._ask)

    @cached_property
    def diagnostics(self) -> requests.Diagnostics:
        """Memory and gauges of the server process."""
        from codex_app_server.protocol import requests

        return requests.Diagnostics(self._ask)

    @cached_property
    def environments(self) -> requests.Environments:
        """Execution environments."""
        from codex_app_server.protocol import requests

        return requests.Environments(self._ask)

    @cached_property
    def external_agents(self) -> requests.ExternalAgents:
        """Import from other agents."""
        from codex_app_server.protocol import requests

        return requests.ExternalAgents(self._ask)

    @cached_property
    def features(self) -> requests.Features:
        """Feature flags."""
        from codex_app_server.protocol import requests

        return requests.Features(self._ask)

    @cached_property
    def feedback(self) -> requests.Feedback:
        """Feedback to the provider of Codex."""
        from codex_app_server.protocol import requests

        return requests.Feedback(self._ask)

    @cached_property
    def file_search(self) -> requests.FileSearch:
        """Fuzzy search for files."""
        from codex_app_server.protocol import requests

        return requests.FileSearch(self._ask)

    @cached_property
    def fs(self) -> FilesApi:
        """Files on the server's host."""
        from codex_app_server.extras import FilesApi

        return FilesApi(self._ask)

    @cached_property
    def goals(self) -> requests.Goals:
        """Goals of threads."""
        from codex_app_server.protocol import requests

        return requests.Goals(self._ask)

    @cached_property
    def hooks(self) -> requests.Hooks:
        """Configured hooks."""
        from codex_app_server.protocol import requests

        return requests.Hooks(self._ask)

    @cached_property
    def marketplaces(self) -> requests.Marketplaces:
        """Sources of plugins."""
        from codex_app_server.protocol import requests

        return requests.Marketplaces(self._ask)

    @cached_property
    def mcp(self) -> requests.Mcp:
        """MCP servers: status, tools, resources, logins."""
        from codex_app_server.protocol import requests

        return requests.Mcp(self._ask)

    @cached_property
    def memories(self) -> requests.Memories:
        """Memories of threads."""
        from codex_app_server.protocol import requests

        return requests.Memories(self._ask)

    @cached_property
    def model_providers(self) -> requests.ModelProviders:
        """Providers of models."""
        from codex_app_server.protocol import requests

        return requests.ModelProviders(self._ask)

    @cached_property
    def models(self) -> requests.Models:
        """Models that may be chosen."""
        from codex_app_server.protocol import requests

        return requests.Models(self._ask)

    @cached_property
    def permission_profiles(self) -> requests.PermissionProfiles:
        """Named permission profiles."""
        from codex_app_server.protocol import requests

        return requests.PermissionProfiles(self._ask)

    @cached_property
    def plugins(self) -> requests.Plugins:
        """Plugins: list, read, install, share."""
        from codex_app_server.protocol import requests

        return requests.Plugins(self._ask)

    @cached_property
    def processes(self) -> requests.Processes:
        """Processes without a sandbox."""
        from codex_app_server.protocol import requests

        return requests.Processes(self._ask)

    @cached_property
    def projects(self) -> requests.Projects:
        """Projects that group threads."""
        from codex_app_server.protocol import requests

        return requests.Projects(self._ask)

    @cached_property
    def queue(self) -> requests.Queue:
        """The server-side queue of a thread."""
        from codex_app_server.protocol import requests

        return requests.Queue(self._ask)

    @cached_property
    def realtime(self) -> requests.Realtime:
        """Voice."""
        from codex_app_server.protocol import requests

        return requests.Realtime(self._ask)

    @cached_property
    def remote_control(self) -> requests.RemoteControl:
        """Remote control of the server."""
        from codex_app_server.protocol import requests

        return requests.RemoteControl(self._ask)

    @cached_property
    def reviews(self) -> requests.Reviews:
        """Code reviews; see also `Thread.review`."""
        from codex_app_server.protocol import requests

        return requests.Reviews(self._ask)

    @cached_property
    def skills(self) -> SkillsApi:
        """Skills and their content."""
        from codex_app_server.extras import SkillsApi

        return SkillsApi(self._ask, self.fs)

    @cached_property
    def terminals(self) -> requests.Terminals:
        """Commands that outlive their turn."""
        from codex_app_server.protocol import requests

        return requests.Terminals(self._ask)

    @cached_property
    def thread_sections(self) -> requests.ThreadSections:
        """Sections of the list of threads."""
        from codex_app_server.protocol import requests

        return requests.ThreadSections(self._ask)

    @cached_property
    def threads(self) -> requests.Threads:
        """Stored and loaded threads."""
        from codex_app_server.protocol import requests

        return requests.Threads(self._ask)

    @cached_property
    def user_verification(self) -> requests.UserVerification:
        """Keys that verify the user."""
        from codex_app_server.protocol import requests

        return requests.UserVerification(self._ask)

    @cached_property
    def windows_sandbox(self) -> requests.WindowsSandbox:
        """The sandbox on Windows."""
        from codex_app_server.protocol import requests

        return requests.WindowsSandbox(self._ask)
