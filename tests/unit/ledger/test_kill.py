import asyncio
import os
import subprocess
import sys
import time

from symphony.model.run import Outcome, OutcomeKind

WRITER = """
import asyncio, sys
from pathlib import Path
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunSpec

async def start(ledger, number):
    issue = Issue(id=IssueId(f"id-{number}"), identifier=f"ABC-{number}", title="t",
                  state="Todo", dispatchable=True)
    spec = RunSpec(run_id=RunId(f"run-{number}"), issue=issue, attempt=None, retry_kind=None)
    await ledger.run_started(spec, started_wall=1.0)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()

async def worker(ledger, first):
    for number in range(first, 1_000_000, 8):
        await start(ledger, number)
        for event in range(20):
            ledger.record_event(RunId(f"run-{number}"), 1.0, "event", "x" * 200)

async def main():
    ledger = await Ledger.open(Path(sys.argv[1]), workflow_id="wf",
                               clock=lambda: Instant(mono=0.0, wall=1.0))
    await asyncio.gather(*(worker(ledger, first) for first in range(8)))

asyncio.run(main())
"""


def write_until_killed(path):
    """Run the writer, kill it among its writes, return the runs that it had acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    told = [process.stdout.readline() for _ in range(300)]
    process.kill()
    told += process.stdout.readlines()
    process.communicate()
    return {int(line) for line in told if line.endswith("\n")}


async def test_nothing_that_was_acknowledged_is_lost_by_sigkill(path, open_ledger):
    acknowledged = set()
    for _ in range(3):
        acknowledged |= write_until_killed(path)
    ledger = await open_ledger()
    assert ledger.notice is None
    contents = await ledger.load()
    restored = {int(claim.issue.id[3:]) for claim in contents.restored.claims}
    assert len(acknowledged) >= 300
    assert acknowledged <= restored
    assert {run.run_id for run in contents.open_runs} == {f"run-{n}" for n in restored}


async def test_ten_thousand_events_a_second_are_far_within_its_means(
    ledger, make_spec, clock, record_property
):
    for number in range(50):
        await ledger.run_started(make_spec(f"run-{number}", number), started_wall=clock.wall)
    began = time.perf_counter()
    for count in range(40_000):
        ledger.record_event(f"run-{count % 50}", clock.wall, "item/agentMessage", "x" * 200)
    posted = time.perf_counter() - began
    await ledger.flush()
    took = time.perf_counter() - began
    record_property("rows_per_second", round(40_000 / took))
    record_property("post_us", round(posted / 40_000 * 1e6, 2))
    print(f"{40_000 / took:.0f} rows/s, {posted / 40_000 * 1e6:.2f} us to post one")
    assert ledger.dropped_events == 0
    assert len(await ledger.recent_events("ABC-7", 500)) == 200


async def test_many_waiting_writers_share_their_transactions(ledger, make_spec, clock):
    specs = [make_spec(f"run-{number}", number) for number in range(500)]
    began = time.perf_counter()
    await asyncio.gather(*(ledger.run_started(spec, started_wall=clock.wall) for spec in specs))
    print(f"500 runs durable in {time.perf_counter() - began:.3f} s")
    done = Outcome(kind=OutcomeKind.COMPLETED)
    await asyncio.gather(
        *(ledger.run_ended(spec.run_id, done, ended_wall=clock.wall) for spec in specs)
    )
    assert (await ledger.load()).open_runs == ()
