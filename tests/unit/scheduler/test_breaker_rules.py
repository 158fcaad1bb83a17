"""The breaker alone, under any order of ends: it never shuts for one issue, and always reopens."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from symphony.model.clock import Instant
from symphony.model.failure import FailureClass
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind
from symphony.scheduler.breaker import Breaker
from symphony.scheduler.claims import Claims
from symphony.scheduler.commands import DropBreaker, SaveBreaker
from symphony.scheduler.eligibility import BreakerRules
from symphony.scheduler.events import BreakerRecord

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
CODES = ("serverOverloaded", "unauthorized", "other", "contextWindowExceeded", None)

ends = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(CODES), st.integers(0, 900)), max_size=40
)
rules_of = st.builds(
    BreakerRules,
    st.integers(2, 6),
    st.sampled_from([60.0, 3600.0]),
    st.sampled_from([30.0, 600.0]),
    st.sampled_from([30.0, 3600.0]),
)


def issue(number: int) -> Issue:
    name = f"A-{number}"
    return Issue(
        id=IssueId(f"id-{name}"), identifier=name, title=name, state="Todo", dispatchable=True
    )


class Shop:
    """A breaker with a clock, and the ledger as its commands leave it."""

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.breaker = Breaker()
        self.mono = 1000.0
        self.rows: dict[FailureClass, BreakerRecord] = {}

    @property
    def now(self) -> Instant:
        return Instant(self.mono, START + self.mono)

    def take(self, commands: list[object]) -> None:
        for command in commands:
            if isinstance(command, SaveBreaker):
                self.rows[command.record.failure_class] = command.record
            elif isinstance(command, DropBreaker):
                self.rows.pop(command.failure_class, None)

    def wait(self, seconds: float) -> None:
        self.mono += seconds
        self.take([*self.breaker.wake_up(self.now)])

    def end(self, number: int, code: str | None) -> None:
        kind = OutcomeKind.COMPLETED if code is None else OutcomeKind.FAILED
        category = None if code is None else "turn_failed"
        self.take(
            [
                *self.breaker.run_ended(
                    issue(number),
                    Outcome(kind=kind, category=category, code=code),
                    used_tokens=False,
                    rules=self.rules,
                    now=self.now,
                )
            ]
        )


@given(rules_of, ends)
def test_what_is_open_has_failed_often_enough_in_more_than_one_issue(
    rules: BreakerRules, story: list[tuple[int, str | None, int]]
) -> None:
    shop = Shop(rules)
    for number, code, pause_s in story:
        shop.wait(pause_s)
        shop.end(number, code)
        for one in shop.breaker.tripped.values():
            assert one.failures >= rules.failures
            assert one.issues >= 2
            assert one.cooldown_s <= max(rules.cooldown_s, rules.max_cooldown_s)


@given(rules_of, st.lists(st.tuples(st.sampled_from(CODES), st.integers(0, 900)), max_size=40))
def test_one_issue_opens_nothing_however_often_it_fails(
    rules: BreakerRules, story: list[tuple[str | None, int]]
) -> None:
    shop = Shop(rules)
    for code, pause_s in story:
        shop.wait(pause_s)
        shop.end(1, code)
        assert shop.breaker.tripped == {}


@given(rules_of, ends, st.integers(0, 5))
def test_once_the_faults_end_canaries_that_work_close_everything(
    rules: BreakerRules, story: list[tuple[int, str | None, int]], failing: int
) -> None:
    shop = Shop(rules)
    for number, code, pause_s in story:
        shop.wait(pause_s)
        shop.end(number, code)
    for attempt in range(failing + 1):
        due = shop.breaker.next_due()
        if due is not None:
            shop.wait(due - shop.mono)
        if shop.breaker.is_open or not shop.breaker.tripped:
            continue
        code = "serverOverloaded" if attempt < failing else None
        shop.breaker.took_slot(issue(9))
        shop.end(9, code)
    while (due := shop.breaker.next_due()) is not None:
        shop.wait(due - shop.mono)
    if shop.breaker.tripped:
        shop.breaker.took_slot(issue(9))
        shop.end(9, None)
    assert shop.breaker.tripped == {}
    assert shop.breaker.why_shut(issue(3).id, Claims()) is None
    assert all(record.until_wall is None for record in shop.rows.values())


@given(rules_of, ends)
def test_the_ledger_restores_what_was_open(
    rules: BreakerRules, story: list[tuple[int, str | None, int]]
) -> None:
    shop = Shop(rules)
    for number, code, pause_s in story:
        shop.wait(pause_s)
        shop.end(number, code)
    again = Breaker()
    again.restore(tuple(shop.rows.values()), shop.now)
    again.wake_up(shop.now)
    assert again.tripped.keys() == shop.breaker.tripped.keys()
    for name, one in shop.breaker.tripped.items():
        restored = again.tripped[name]
        assert restored.is_half_open == one.is_half_open
        assert (restored.failures, restored.issues) == (one.failures, one.issues)
        if not one.is_half_open:
            assert abs(restored.until_mono - one.until_mono) < 1e-3


def test_a_chosen_issue_takes_the_place_of_a_canary_and_of_its_trial() -> None:
    shop = Shop(BreakerRules(2, 3600.0, 30.0, 3600.0, canary_s=600.0))
    for number in (1, 2):
        shop.end(number, "serverOverloaded")
    shop.wait(30)
    shop.breaker.took_slot(issue(1))
    shop.breaker.started(issue(1).id, shop.rules, shop.now)
    shop.take([*shop.breaker.choose(issue(2), shop.now)])
    # What was chosen never starts: its place is free again, and the other's trial is over.
    for _ in range(4):
        due = shop.breaker.next_due()
        if due is not None:
            shop.wait(due - shop.mono)
    assert shop.breaker.next_due() is None
    assert [name.value for name in shop.breaker.tripped] == ["model"]
    assert shop.breaker.why_shut(issue(3).id, Claims()) is None
