"""The rows of breaker and hours outlive the daemon, and a damaged one costs no start."""

import sqlite3

from symphony.model.failure import FailureClass
from symphony.model.issue import IssueId
from symphony.scheduler.commands import DropBreaker, SaveBreaker, SaveOverride
from symphony.scheduler.events import BreakerRecord, Failure, Override


def record(**changes):
    fields = {
        "failure_class": FailureClass.HOOK,
        "failures": (Failure(IssueId("id-1"), 0.0, 10.5), Failure(IssueId("id-2"), 0.0, 20.5, 4.5)),
        "count": 2,
        "issues": 2,
        "since_wall": 20.5,
        "until_wall": 620.5,
        "cooldown_s": 600.0,
    }
    return BreakerRecord(**(fields | changes))


async def test_an_open_breaker_is_restored_as_it_was(open_ledger, ledger):
    await ledger.save(SaveBreaker(record()))
    assert (await (await open_ledger()).load()).restored.breakers == (record(),)


async def test_a_row_of_a_version_that_kept_no_run_times_is_read(ledger, open_ledger):
    await ledger.save(SaveBreaker(record()))
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE breakers SET failures = '[[\"id-1\", 10.5]]'")
    (found,) = (await (await open_ledger()).load()).restored.breakers
    assert found.failures == (Failure(IssueId("id-1"), 0.0, 10.5),)


async def test_a_count_below_the_limit_is_restored_too(ledger):
    counted = record(count=0, issues=0, since_wall=0.0, until_wall=None, cooldown_s=0.0)
    await ledger.save(SaveBreaker(counted))
    assert (await ledger.load()).restored.breakers == (counted,)


async def test_one_row_a_class_the_newest_stays(ledger):
    await ledger.save(SaveBreaker(record()))
    await ledger.save(SaveBreaker(record(until_wall=900.0)))
    await ledger.save(SaveBreaker(record(failure_class=FailureClass.MODEL)))
    found = (await ledger.load()).restored.breakers
    assert [(one.failure_class, one.until_wall) for one in found] == [
        (FailureClass.HOOK, 900.0),
        (FailureClass.MODEL, 620.5),
    ]


async def test_a_closed_class_is_forgotten(ledger):
    await ledger.save(SaveBreaker(record()))
    await ledger.save(DropBreaker(FailureClass.HOOK))
    await ledger.save(DropBreaker(FailureClass.MODEL))
    assert (await ledger.load()).restored.breakers == ()


async def test_what_an_older_or_newer_version_called_otherwise_is_left_out_and_told(ledger, path):
    await ledger.save(SaveBreaker(record()))
    await ledger.save(SaveBreaker(record(failure_class=FailureClass.MODEL)))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE breakers SET failures = '[[1]]' WHERE failure_class = 'hook'")
        connection.execute(
            "INSERT INTO breakers SELECT workflow_id, 'weather', failures, count, issues, "
            "since_wall, until_wall, cooldown_s FROM breakers WHERE failure_class = 'model'"
        )
    connection.close()
    contents = await ledger.load()
    assert [one.failure_class for one in contents.restored.breakers] == [FailureClass.MODEL]
    assert len(contents.faults) == 2
    assert any("weather" in fault for fault in contents.faults)


async def test_an_override_of_the_active_hours_is_kept_until_it_is_ended(open_ledger, ledger):
    assert (await ledger.load()).restored.override is None
    await ledger.save(SaveOverride(Override(10.0, 20.0)))
    await ledger.save(SaveOverride(Override(11.0, 30.0)))
    assert (await (await open_ledger()).load()).restored.override == Override(11.0, 30.0)
    await ledger.save(SaveOverride(None))
    assert (await ledger.load()).restored.override is None
