"""The boundary to a tracker (SPEC 11): two reads, a look-up, and tools that the agent may call.

An adapter is built from the settings of one moment and keeps them; a reload builds a new one. It
knows no other adapter. Failures are ``TrackerError`` with a category of SPEC 11.4.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from symphony.model.issue import Issue, IssueId

from .http_limits import RateLimit


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that is offered to the agent.

    Attributes:
        name: ``^[a-zA-Z0-9_-]+$``.
        description: What it does, for the model.
        input_schema: JSON Schema of its arguments, an object schema.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answers: success or failure, and text that the model reads (JSON as a rule)."""

    success: bool
    text: str


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom a tool runs; never holds a credential."""

    issue: Issue
    run_id: str


class Tracker(Protocol):
    """One configured tracker.

    Attributes:
        kind: The value of ``tracker.kind``.
        secret_environment_names: Environment names that agents and hooks must not inherit.
    """

    @property
    def kind(self) -> str: ...

    @property
    def secret_environment_names(self) -> Sequence[str]: ...

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the scope in these states, in the tracker's order.

        Malformed records are left out with a counted warning. No states: no request.

        Raises:
            TrackerError: The read failed; nothing partial is returned.
        """
        ...

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids, in the asked order, each once.

        An id that is absent from a successful answer is gone from the scope.

        Raises:
            TrackerError: The read failed, or a requested record is malformed.
        """
        ...

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the visible issue of this identifier (in any case) or id, whatever its state.

        For people who ask about one issue. None: the scope has none of this name, or it can't be
        one of this tracker's; then no request is made.

        Raises:
            TrackerError: The read failed, or the record is malformed.
        """
        ...

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tools of this tracker; bound to the session that offers them."""
        ...

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute a tool. Never raises for what the agent got wrong: that is a failed result."""
        ...

    def changes(self) -> AsyncIterator[None] | None:
        """Yield whenever the tracker changed locally (a watched folder); None without a watch."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@runtime_checkable
class ChecksAtStart(Protocol):
    """A tracker that can tell at start what a person should mend first."""

    async def faults_at_start(self) -> Sequence[str]:
        """Return a sentence for each fault, naming place and mend; none where all is well.

        Asked once, before anything is dispatched. Later the same faults are warnings.
        """
        ...


@dataclass(slots=True)
class Trial:
    """Whether the state reads of a tracker stop at their first page; for people who try it.

    Attributes:
        first_page: Set on a tracker of one's own, never on one that a daemon polls: an issue that
            is missing from a read counts as gone.
        cut: Whether a read stopped although there was more.
    """

    first_page: bool = False
    cut: bool = False

    def ends(self, more: bool) -> bool:
        """Whether a list ends with this page; ``more`` says whether the provider has another."""
        self.cut = self.cut or (more and self.first_page)
        return self.first_page or not more


@runtime_checkable
class Triable(Protocol):
    """A tracker whose lists have pages."""

    @property
    def trial(self) -> Trial: ...


class RequestMeter(Protocol):
    """What an HTTP client has counted and been told (``http.HttpClient``)."""

    @property
    def rate_limit(self) -> RateLimit | None: ...

    @property
    def rate_limits(self) -> Mapping[str, RateLimit]: ...

    @property
    def requests(self) -> int: ...

    @property
    def not_modified(self) -> int: ...

    @property
    def answers(self) -> Mapping[str, int]: ...

    @property
    def breaker_state(self) -> str: ...


@runtime_checkable
class Metered(Protocol):
    """A tracker that is reached over HTTP."""

    @property
    def http(self) -> RequestMeter: ...


@dataclass(frozen=True, slots=True)
class TrackerProfile:
    """Published facts of an adapter that configuration needs before it is built."""

    kind: str
    default_active_states: tuple[str, ...] | None = None
    default_terminal_states: tuple[str, ...] | None = None
    summary: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
