"""A disk that is full fails every write; the log says so once, and how many it were."""

from __future__ import annotations

import pytest
import structlog.testing

from symphony.engine.write_faults import WriteFaults


@pytest.mark.parametrize("count", [1, 2, 300])
def test_one_condition_is_one_error_and_its_end_tells_the_count(count: int) -> None:
    faults = WriteFaults()
    with structlog.testing.capture_logs() as lines:
        for number in range(count):
            faults.failed(f"save {number}", "database or disk is full")
        faults.succeeded()
        faults.succeeded()
        faults.failed("save again", "disk I/O error")
    told = [line for line in lines if line["log_level"] != "debug"]
    first, *middle, last = told
    assert (first["log_level"], first["what"]) == ("error", "save 0")
    assert first["error"] == "database or disk is full"
    assert [line["count"] for line in middle] == ([count] if count > 1 else [])
    assert (last["log_level"], last["what"]) == ("error", "save again")
