import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest

from symphony.errors import LedgerError
from symphony.ledger.writer import WriterThread
from symphony.scheduler.commands import DropClaim, SaveClaim

LIMITED = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from symphony.errors import LedgerError
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.scheduler.commands import SaveClaim

def claim(number):
    issue = Issue(id=IssueId(str(number)), identifier=f"A-{number}", title="x" * 20000,
                  state="Todo", dispatchable=True)
    return SaveClaim(kind="blocked", issue=issue, attempt=None, retry_kind=None, error="e")

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = await Ledger.open(Path(sys.argv[1]), workflow_id="wf",
                               clock=lambda: Instant(mono=0.0, wall=1.0))
    await ledger.save(claim(0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    failed = 0
    for number in range(1, 40):
        try:
            await ledger.save(claim(number))
        except LedgerError as error:
            assert error.category == "ledger_write_failed"
            failed += 1
    assert failed > 0, "the limit was not reached"
    assert ledger.degraded is not None
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await ledger.save(claim(40))
    assert ledger.degraded is None
    contents = await ledger.load()
    print(failed, len(contents.restored.claims))
    await ledger.aclose()

asyncio.run(main())
"""


def claim_of(issue, kind="blocked"):
    return SaveClaim(kind=kind, issue=issue, attempt=None, retry_kind=None, error="e")


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB, where we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    with open(place / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


class TestOnAFullDisk:
    @pytest.fixture
    def path(self, small_disk):
        return small_disk / "ledger.sqlite3"

    async def test_the_caller_is_told_and_what_failed_is_written_once_there_is_room(
        self, ledger, make_issue, path
    ):
        await ledger.save(claim_of(make_issue(0)))
        fill(path.parent)
        padding = make_issue(1, description="x" * 200_000)
        with pytest.raises(LedgerError) as caught:
            await ledger.save(claim_of(padding))
        assert caught.value.category == "ledger_write_failed"
        assert "full" in ledger.degraded
        with pytest.raises(LedgerError):
            await ledger.save(claim_of(make_issue(2, description="x" * 200_000)))
        assert [c.issue.id for c in (await ledger.load()).restored.claims] == ["id-0"]
        (path.parent / "ballast").unlink()
        await ledger.save(claim_of(make_issue(3)))
        assert ledger.degraded is None
        found = {c.issue.id: c.issue for c in (await ledger.load()).restored.claims}
        assert sorted(found) == ["id-0", "id-1", "id-2", "id-3"]
        assert found["id-1"] == padding

    async def test_a_claim_that_was_dropped_meanwhile_does_not_come_back(
        self, ledger, make_issue, path
    ):
        fill(path.parent)
        issue = make_issue(1, description="x" * 200_000)
        with pytest.raises(LedgerError):
            await ledger.save(claim_of(issue))
        (path.parent / "ballast").unlink()
        await ledger.save(DropClaim(issue.id))
        assert (await ledger.load()).restored.claims == ()

    async def test_closing_comes_to_an_end_and_the_earlier_rows_stay(
        self, open_ledger, make_issue, path
    ):
        first = await open_ledger()
        await first.save(claim_of(make_issue(1)))
        fill(path.parent)
        with pytest.raises(LedgerError):
            await first.save(claim_of(make_issue(2, description="x" * 200_000)))
        first.record_event("run-1", 1.0, "lost")
        async with asyncio.timeout(10):
            await first.aclose()
        assert first.dropped_events == 1
        (path.parent / "ballast").unlink()
        again = await open_ledger()
        assert [c.issue.id for c in (await again.load()).restored.claims] == ["id-1"]

    async def test_a_full_disk_at_the_start_sets_no_sound_ledger_aside(
        self, open_ledger, make_issue, path
    ):
        first = await open_ledger()
        await first.save(claim_of(make_issue(1)))
        await first.aclose()
        fill(path.parent)
        with contextlib.suppress(LedgerError):
            await (await open_ledger()).aclose()
        assert list(path.parent.glob("*.damaged-*")) == []
        (path.parent / "ballast").unlink()
        again = await open_ledger()
        assert again.notice is None
        assert len((await again.load()).restored.claims) == 1


def test_a_file_size_limit_degrades_the_ledger_and_loses_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "ledger.sqlite3")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    failed, restored = map(int, result.stdout.split())
    assert failed > 0
    assert restored == 41


class FailingOnce:
    """A connection's stand-in for what a disk does: the first transactions fail."""

    def __init__(self, failures):
        self.failures = failures
        self.ran = []

    def __call__(self, connection):
        if self.failures > 0:
            self.failures -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        self.ran.append(connection.total_changes)


@pytest.fixture
async def writer():
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    thread = WriterThread(
        connection, lambda *_: None, loop=asyncio.get_running_loop(), retry_s=0.01
    )
    yield thread
    await asyncio.to_thread(thread.close)


async def test_owed_writes_are_tried_again_without_being_asked(writer):
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    operation = FailingOnce(2)

    def tell(connection):
        operation(connection)
        loop.call_soon_threadsafe(done.set)

    with pytest.raises(LedgerError, match="disk I/O error"):
        await writer.submit(tell, key="a")
    async with asyncio.timeout(5):
        await done.wait()
    assert operation.failures == 0


async def test_only_the_newest_owed_write_of_a_key_is_made(writer):
    order = []

    def write(name):
        return lambda _connection: order.append(name)

    broken = FailingOnce(2)
    futures = [
        writer.submit(broken),
        writer.submit(write("a1"), key="a"),
        writer.submit(write("b"), key="b"),
        writer.submit(write("a2"), key="a"),
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    if all(isinstance(result, LedgerError) for result in results):
        order.clear()
        await writer.submit(write("c"))
        assert order == ["b", "a2", "c"]
    else:  # the thread took the first write before the others were there
        assert order == ["a1", "b", "a2"]


async def test_an_operation_with_a_fault_of_its_own_does_not_fail_its_neighbours(writer):
    def wrong(connection):
        connection.execute("SELECT * FROM no_such_table")

    def create(connection):
        connection.execute("CREATE TABLE found (x)")

    bad, good = writer.submit(wrong, key="bad"), writer.submit(create)
    with pytest.raises(LedgerError, match="no such table"):
        await bad
    await good
    assert writer.degraded is None


async def test_a_fault_of_ours_in_a_write_is_logged_with_its_trace(writer, caplog):
    def wrong(_connection):
        raise TypeError("no such shape")

    with pytest.raises(LedgerError, match="no such shape"):
        await writer.submit(wrong, key="bad")

    (record,) = [one for one in caplog.records if one.exc_info]
    assert "fault of its own" in record.getMessage()
    assert isinstance(record.exc_info[1], TypeError)


async def test_a_cancelled_caller_does_not_undo_its_write(writer):
    ran = asyncio.Event()
    loop = asyncio.get_running_loop()
    future = writer.submit(lambda _connection: loop.call_soon_threadsafe(ran.set))
    future.cancel()
    async with asyncio.timeout(5):
        await ran.wait()
    await writer.submit(lambda _connection: None)
