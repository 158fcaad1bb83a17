"""May this issue start now, and if not, why (SPEC 8.2, 8.3)?

One table of gates, in a fixed order. Dispatch asks for the first gate that fails, ``explain`` shows
all of them: both read the same table, so an explanation can't differ from the decision. Gates only
look; ``dispatch`` acts on them. ``Rules`` are the settings in the form in which gates compare.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from enum import Enum, StrEnum
from math import inf

from symphony.config.hours import ActiveHours
from symphony.config.settings import Settings
from symphony.model.clock import iso
from symphony.model.issue import Issue, IssueId, normalize_state

from .events import Hold, HoldKind
from .placement import LOCAL_HOST, Slots, place


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When the failure breaker opens and for how long; ``failures`` 0 turns it off.

    A canary that has run for ``canary_s`` works; 0: only one whose turn or run has ended well.
    """

    failures: int
    window_s: float
    cooldown_s: float
    max_cooldown_s: float
    canary_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """What a host must have left, and what a start takes of it; 0 and None are not checked."""

    min_memory_mb: int
    min_disk_mb: int
    max_pressure: int | None
    agent_memory_mb: int = 0
    agent_disk_mb: int = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> ResourceRules:
        """Take them from the settings."""
        worker = settings.worker
        return cls(
            worker.min_free_memory_mb,
            worker.min_free_disk_mb,
            worker.max_memory_pressure,
            worker.agent_memory_mb,
            worker.agent_disk_mb,
        )


Scope = tuple[str | None, Mapping[str, object]]
"""A tracker's kind and its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decide, normalised once per configuration.

    Attributes:
        max_backoff_s: Cap of a failure's delay, seconds.
        stall_timeout_s: Silence that counts as a stall, seconds; 0 or less turns it off.
        unblock_on: Changes of a blocked issue that let it run again.
        blocked_retry_s: After how many seconds a block ends by itself, by its kind.
        scope: What the tracker is asked about; a change means that ids may mean other issues.
    """

    active: frozenset[str]
    terminal: frozenset[str]
    labels: frozenset[str]
    active_names: tuple[str, ...]
    terminal_names: tuple[str, ...]
    max_agents: int
    max_by_state: Mapping[str, int]
    hosts: tuple[str, ...]
    max_per_host: int | None
    interval_s: float
    webhook_interval_s: float
    longest_interval_s: float
    max_backoff_s: float
    stall_timeout_s: float
    unblock_on: tuple[str, ...]
    blocked_retry_s: Mapping[str, float]
    scope: Scope
    breaker: BreakerRules
    hours: ActiveHours | None
    resources: ResourceRules

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        """Take from the settings what scheduling needs; blank state names are dropped."""
        tracker, agent, worker = settings.tracker, settings.agent, settings.worker
        active = {normalize_state(name): name for name in tracker.active_states}
        terminal = {normalize_state(name): name for name in tracker.terminal_states}
        hosts = dict.fromkeys(host.strip() for host in worker.ssh_hosts)
        active.pop("", None)
        terminal.pop("", None)
        hosts.pop("", None)
        return cls(
            active=frozenset(active),
            terminal=frozenset(terminal),
            labels=frozenset(label.strip().lower() for label in tracker.required_labels),
            active_names=tuple(active.values()),
            terminal_names=tuple(terminal.values()),
            max_agents=agent.max_concurrent_agents,
            max_by_state={
                normalize_state(name): limit
                for name, limit in agent.max_concurrent_agents_by_state.items()
            },
            hosts=tuple(hosts),
            max_per_host=worker.max_concurrent_agents_per_host,
            interval_s=settings.polling.interval_s,
            webhook_interval_s=settings.webhooks.poll_interval_s,
            longest_interval_s=settings.polling.max_interval_s,
            max_backoff_s=agent.max_retry_backoff_ms / 1000,
            stall_timeout_s=settings.codex.stall_timeout_ms / 1000,
            unblock_on=agent.unblock_on,
            blocked_retry_s={kind: ms / 1000 for kind, ms in agent.blocked_retry_ms.items()},
            scope=(tracker.kind, tracker.provider),
            resources=ResourceRules.from_settings(settings),
            hours=ActiveHours.of(agent.active_hours, agent.active_hours_timezone),
            breaker=BreakerRules(
                settings.breaker.failures,
                settings.breaker.window_ms / 1000,
                settings.breaker.cooldown_ms / 1000,
                settings.breaker.max_cooldown_ms / 1000,
                settings.breaker.canary_ms / 1000,
            ),
        )

    def standing(self, issue: Issue) -> Standing:
        """Say what the tracker's view of an issue means for work on it (SPEC 8.5)."""
        state = issue.state_key
        if state in self.terminal:
            return Standing.TERMINAL
        if state not in self.active:
            return Standing.INACTIVE
        if not issue.dispatchable or not self.labels.issubset(issue.labels):
            return Standing.UNROUTABLE
        return Standing.WANTED


class Standing(Enum):
    """What the tracker wants of an issue that we hold."""

    TERMINAL = "terminal"
    """It is finished: stop, then clean."""
    INACTIVE = "inactive"
    """It left the active states: stop, keep the workspace."""
    UNROUTABLE = "unroutable"
    """It is no longer for us (adapter's verdict or a label): stop, keep the workspace."""
    WANTED = "wanted"
    """It is active and for us: work may go on."""


class GateName(StrEnum):
    """The conditions of a start, in the order in which they are asked."""

    COMPLETE = "complete"
    NOT_TERMINAL = "not_terminal"
    ACTIVE = "active"
    DISPATCHABLE = "dispatchable"
    LABELS = "required_labels"
    UNCLAIMED = "unclaimed"
    CONFIG = "config_valid"
    ACCEPTING = "accepting_work"
    NOT_HELD = "not_held"
    NOT_PARKED = "not_parked"
    BREAKER = "breaker_closed"
    WITHIN_BUDGET = "within_budget"
    HOURS = "active_hours"
    PLACES = "places_present"
    RESOURCES = "host_resources"
    GLOBAL_SLOT = "global_slot"
    STATE_SLOT = "state_slot"
    HOST_SLOT = "host_slot"

    @property
    def sentence(self) -> str:
        """What it means that the gate is open."""
        return _SENTENCES[self]


_SENTENCES = {
    GateName.COMPLETE: "The issue has an id, an identifier, a title and a state.",
    GateName.NOT_TERMINAL: "The issue's state is not one of tracker.terminal_states.",
    GateName.ACTIVE: "The issue's state is one of tracker.active_states.",
    GateName.DISPATCHABLE: "The tracker's own rules (assignee, board, blockers) allow work on it.",
    GateName.LABELS: "The issue has every label of tracker.required_labels.",
    GateName.UNCLAIMED: "Nothing of the issue is running, waiting for a retry or blocked.",
    GateName.CONFIG: "The workflow file is valid.",
    GateName.ACCEPTING: "The daemon takes work.",
    GateName.NOT_HELD: "No operator has paused or drained this work.",
    GateName.NOT_PARKED: "No usage limit holds all work back.",
    GateName.BREAKER: "Failures that all issues share do not hold work back.",
    GateName.WITHIN_BUDGET: "The budgets of the issue, the day and all work are not spent.",
    GateName.PLACES: "The state directory and the workspace root are where they were.",
    GateName.RESOURCES: "A host has the free memory and disk that worker.min_free_* ask for.",
    GateName.HOURS: "It is within agent.active_hours, or an operator has lifted them.",
    GateName.GLOBAL_SLOT: "Fewer runs than agent.max_concurrent_agents.",
    GateName.STATE_SLOT: "Fewer runs in this state than agent.max_concurrent_agents_by_state.",
    GateName.HOST_SLOT: "A host has room under worker.max_concurrent_agents_per_host.",
}

ISSUE_GATES = frozenset(
    {
        GateName.COMPLETE,
        GateName.NOT_TERMINAL,
        GateName.ACTIVE,
        GateName.DISPATCHABLE,
        GateName.LABELS,
    }
)
"""Gates that only a change of the issue itself opens."""

SLOT_GATES = frozenset({GateName.GLOBAL_SLOT, GateName.STATE_SLOT, GateName.HOST_SLOT})
"""Gates that open when another run ends."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition's answer for one issue.

    ``detail`` says why it is shut, with the numbers, or what it means that it is open. ``lift``
    says how a shut one is opened; only an explanation has it.
    """

    name: GateName
    passed: bool
    detail: str
    lift: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What gates look at, of one moment.

    Attributes:
        describe_claim: A sentence about an issue's claim, or None where it has none.
        config_error: Why the workflow file is not in force, or None.
        parked: Until when and why no work starts, or None.
        holds: Operators' holds, by identifier; None holds all work.
        breaker: Why the failure breaker keeps an issue from starting, or None; asked about no
            issue, why it keeps all of them.
        spent: Why nothing may start for the day's or the total budget, or None.
        issue_spent: Why an issue may not start for its own budget, or None.
        hours: Why no work starts at this time of the week, or None.
        lost: What the daemon stands on and has lost, or None.
        short: What hosts lack, by host, starts of this very step included; nothing is placed there.
    """

    rules: Rules
    slots: Slots
    describe_claim: Callable[[IssueId], str | None]
    config_error: str | None
    parked: str | None
    shutting_down: bool
    suspects: Collection[str] = ()
    holds: Mapping[str | None, Hold] = field(default_factory=dict)
    breaker: Callable[[IssueId | None], str | None] = lambda _issue_id: None
    spent: str | None = None
    issue_spent: Callable[[IssueId], str | None] = lambda issue_id: None
    hours: str | None = None
    lost: str | None = None
    short: Mapping[str, str] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """No issue at all may start: shut for a reason that is not the issue's own."""
        return (
            self.slots.total >= self.rules.max_agents
            or self.config_error is not None
            or self.parked is not None
            or self.spent is not None
            or self.shutting_down
            or None in self.holds
            or self.breaker(None) is not None
            or self.hours is not None
            or self.lost is not None
            or self.all_short
        )

    @property
    def all_short(self) -> bool:
        """No host has resources for another agent."""
        return bool(self.short) and self.short.keys() >= set(self.rules.hosts or (LOCAL_HOST,))

    def place(self, preferred: str | None = None) -> str | None:
        """Return the host for the next run, or None where all are full."""
        rules = self.rules
        return place(
            rules.hosts,
            rules.max_per_host,
            self.slots,
            preferred=preferred,
            suspects=self.suspects,
            short=self.short,
        )


def _complete(issue: Issue, view: View) -> str | None:
    fields = {
        "id": issue.id,
        "identifier": issue.identifier,
        "title": issue.title,
        "state": issue.state,
    }
    blank = [name for name, value in fields.items() if not value.strip()]
    return f"blank: {', '.join(blank)}" if blank else None


def _not_terminal(issue: Issue, view: View) -> str | None:
    return f"state {issue.state!r} is terminal" if issue.state_key in view.rules.terminal else None


def _active(issue: Issue, view: View) -> str | None:
    if issue.state_key in view.rules.active:
        return None
    return f"state {issue.state!r} is not one of {', '.join(view.rules.active_names) or 'none'}"


def _dispatchable(issue: Issue, view: View) -> str | None:
    if issue.dispatchable:
        return None
    if issue.withheld is not None:
        return issue.withheld
    blockers = [ref.identifier or ref.id for ref in issue.blocked_by]
    named = ", ".join(name for name in blockers if name)
    return f"blocked by {named}" if named else "the tracker's own rules exclude it"


def _labels(issue: Issue, view: View) -> str | None:
    lacking = view.rules.labels.difference(issue.labels)
    return f"lacks {', '.join(map(repr, sorted(lacking)))}" if lacking else None


def _unclaimed(issue: Issue, view: View) -> str | None:
    return view.describe_claim(issue.id)


def _config(issue: Issue, view: View) -> str | None:
    return view.config_error


def _accepting(issue: Issue, view: View) -> str | None:
    return "the daemon is shutting down" if view.shutting_down else None


def _not_held(issue: Issue, view: View) -> str | None:
    hold = view.holds.get(None) or view.holds.get(issue.identifier)
    if hold is None:
        return None
    what = "all work" if hold.scope is None else "this issue"
    done = "drained" if hold.kind is HoldKind.DRAIN else "paused"
    why = f": {hold.reason}" if hold.reason else ""
    return f"{hold.by} {done} {what} at {iso(hold.since_wall)}{why}"


def _not_parked(issue: Issue, view: View) -> str | None:
    return view.parked


def _breaker_closed(issue: Issue, view: View) -> str | None:
    return view.breaker(issue.id)


def _within_budget(issue: Issue, view: View) -> str | None:
    return view.spent or view.issue_spent(issue.id)


def _active_hours(issue: Issue, view: View) -> str | None:
    return view.hours


def _places_present(issue: Issue, view: View) -> str | None:
    return view.lost


def _host_resources(issue: Issue, view: View) -> str | None:
    if not view.all_short:
        return None
    hosts = view.rules.hosts or (LOCAL_HOST,)
    return "; ".join(f"{host}: {view.short[host]}" for host in hosts)


def _global_slot(issue: Issue, view: View) -> str | None:
    taken, limit = view.slots.total, view.rules.max_agents
    return None if taken < limit else f"{taken} of {limit} slots are taken"


def _state_slot(issue: Issue, view: View) -> str | None:
    state = issue.state_key
    limit = view.rules.max_by_state.get(state)
    taken = view.slots.by_state[state]
    if limit is None or taken < limit:
        return None
    return f"{taken} of {limit} slots of state {issue.state!r} are taken"


def _host_slot(issue: Issue, view: View) -> str | None:
    # Where no host has resources at all, that gate says so.
    if view.all_short or view.place() is not None:
        return None
    why = f"all {len(view.rules.hosts)} hosts run {view.rules.max_per_host} agents"
    return f"{why} or lack resources ({', '.join(view.short)})" if view.short else why


_GATES: tuple[tuple[GateName, Callable[[Issue, View], str | None]], ...] = (
    (GateName.COMPLETE, _complete),
    (GateName.NOT_TERMINAL, _not_terminal),
    (GateName.ACTIVE, _active),
    (GateName.DISPATCHABLE, _dispatchable),
    (GateName.LABELS, _labels),
    (GateName.UNCLAIMED, _unclaimed),
    (GateName.CONFIG, _config),
    (GateName.ACCEPTING, _accepting),
    (GateName.NOT_HELD, _not_held),
    (GateName.NOT_PARKED, _not_parked),
    (GateName.BREAKER, _breaker_closed),
    (GateName.WITHIN_BUDGET, _within_budget),
    (GateName.HOURS, _active_hours),
    (GateName.PLACES, _places_present),
    (GateName.RESOURCES, _host_resources),
    (GateName.GLOBAL_SLOT, _global_slot),
    (GateName.STATE_SLOT, _state_slot),
    (GateName.HOST_SLOT, _host_slot),
)


def gates(issue: Issue, view: View) -> list[Gate]:
    """Return every gate's answer for this issue, in order."""
    answers = ((name, check(issue, view)) for name, check in _GATES)
    return [
        Gate(name, True, name.sentence) if why is None else Gate(name, False, why)
        for name, why in answers
    ]


def first_shut(issue: Issue, view: View, *, claimed: bool = False) -> Gate | None:
    """Return the first gate that is shut for this issue, or None where it may start now.

    With ``claimed`` the issue's own claim does not count: a due retry asks for itself.
    """
    for name, check in _GATES:
        if claimed and name is GateName.UNCLAIMED:
            continue
        why = check(issue, view)
        if why is not None:
            return Gate(name, False, why)
    return None


DispatchKey = tuple[int, bool, float, str]


def dispatch_key(issue: Issue, *, fresh: bool) -> DispatchKey:
    """Return the sort key of dispatch (SPEC 8.2): priority 1 to 4, oldest, identifier.

    Within one priority an issue that waits for its retry goes before fresh ones: it was chosen
    earlier and its workspace holds work. New issues can't overtake it for ever.
    """
    priority = issue.priority
    rank = priority if priority is not None and 1 <= priority <= 4 else 5
    created = issue.created_at
    if created is None:
        age = inf
    elif created.tzinfo is None:
        age = created.replace(tzinfo=UTC).timestamp()
    else:
        age = created.timestamp()
    return rank, fresh, age, issue.identifier
