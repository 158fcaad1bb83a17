import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from symphony.errors import ConfigError
from symphony.observe.logs import FILE_BYTES, QUEUE_LIMIT, bind, bound, get_logger, setup_logging


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def start(tmp_path, stream):
    handles = []

    def start_logging(root=tmp_path, **options):
        handles.append(setup_logging(root, **({"stream": stream} | options)))
        return handles[-1]

    yield start_logging
    for handle in handles:
        handle.close()


def lines_of(handle):
    handle.close()
    return handle.path.read_text().splitlines()


def test_lines_go_to_the_file_under_the_root(start, tmp_path, stream):
    handle = start()
    get_logger("symphony.engine").info("Dispatching issue to agent", attempt=1)
    [line] = lines_of(handle)
    assert handle.path == tmp_path / "log" / "symphony.log"
    assert 'level=info logger=symphony.engine msg="Dispatching issue to agent" attempt=1' in line
    assert stream.getvalue() == ""


def test_warnings_go_to_stderr_as_well(start, stream):
    handle = start()
    get_logger("symphony").warning("Retry poll failed", error="no route")
    assert lines_of(handle) == stream.getvalue().splitlines()
    assert 'error="no route"' in stream.getvalue()


def test_without_a_terminal_view_everything_goes_to_stderr(start, stream):
    handle = start(stderr="all")
    get_logger("symphony").info("a")
    assert len(lines_of(handle)) == len(stream.getvalue().splitlines()) == 1


def test_what_goes_to_stderr_can_change_when_the_view_starts(start, tmp_path, stream):
    handle = start(stderr="none")
    get_logger("symphony").error("hidden")
    handle.close()
    again = start(stderr="none")
    again.show_on_stderr("warnings")
    get_logger("symphony").error("shown")
    again.close()
    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()


def test_json_by_option(start):
    handle = start(log_format="json")
    get_logger("symphony").info("Issue blocked", issue_id="1", nested={"a": [1]})
    [line] = map(json.loads, lines_of(handle))
    assert (line["msg"], line["issue_id"], line["nested"]) == ("Issue blocked", "1", {"a": [1]})


async def test_fields_of_the_issue_and_session_are_bound_to_the_task(start):
    handle = start()
    log = get_logger("symphony.runner")

    async def run(number):
        with bound(issue_id=f"id-{number}", issue_identifier=f"ABC-{number}"):
            log.info("Starting agent run")
            bind(session_id=f"s-{number}")
            logging.getLogger("symphony.hosts").info("Codex session %s", "started")

    await asyncio.gather(run(1), run(2))
    log.info("outside")
    lines = lines_of(handle)
    assert sum("issue_id=id-1 issue_identifier=ABC-1" in line for line in lines) == 2
    assert sum("session_id=s-2" in line for line in lines) == 1
    assert "issue_id" not in lines[-1]


def test_the_standard_librarys_records_take_the_same_way(start):
    handle = start()
    logging.getLogger("symphony.ledger").info("written in %d parts", 3, extra={"issue_id": "7"})
    logging.getLogger("httpx2").info("noise of a library")
    logging.getLogger("httpx2").warning("trouble of a library")
    wrong = logging.LogRecord("symphony", logging.INFO, "", 0, "bad arguments %d", ("x",), None)
    logging.getLogger().handlers[-1].handle(wrong)
    lines = lines_of(handle)
    assert 'logger=symphony.ledger msg="written in 3 parts" issue_id=7' in lines[0]
    assert 'logger=httpx2 msg="trouble of a library"' in lines[1]
    assert "bad arguments" in lines[2]
    assert len(lines) == 3


def test_an_exception_becomes_one_line(start):
    handle = start()
    for log in (get_logger("symphony"), logging.getLogger("symphony")):
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError:
            log.exception("it failed")
    first, second = lines_of(handle)
    for line in (first, second):
        assert "level=error" in line
        assert "RuntimeError: two\\nlines" in line


def test_the_level_is_an_option(start):
    quiet = start(level="warning")
    get_logger("symphony").info("no")
    logging.getLogger("symphony").info("no")
    assert lines_of(quiet) == []
    loud = start(level="debug")
    get_logger("symphony").debug("yes")
    assert len(lines_of(loud)) == 1


def test_registered_secrets_never_reach_a_sink(start, stream):
    handle = start(stderr="all")
    handle.redactor.add("lin_api_abcdef")
    get_logger("symphony").info("calling lin_api_abcdef", header="Bearer lin_api_abcdef")
    logging.getLogger("uvicorn").warning("GET /?token=lin_api_abcdef")
    text = "\n".join(lines_of(handle)) + stream.getvalue()
    assert "lin_api" not in text
    assert text.count("[redacted]") == 6


def test_the_file_rotates_at_ten_mebibytes_and_five_old_files_stay(start):
    handle = start()
    log = get_logger("symphony")
    line = "x" * 8000
    for _ in range(7 * FILE_BYTES // 8000):
        log.info(line)
    handle.close()
    files = sorted(path.name for path in handle.path.parent.iterdir())
    assert files == ["symphony.log", *(f"symphony.log.{n}" for n in range(1, 6))]
    assert all(path.stat().st_size <= FILE_BYTES for path in handle.path.parent.iterdir())


def test_an_unusable_logs_root_is_refused_at_the_start_with_its_mend(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        start(tmp_path / "file" / "logs", setting="--logs-root")
    assert caught.value.category == "logs_root_unusable"
    assert caught.value.message.startswith("--logs-root: ")
    assert str(tmp_path / "file" / "logs" / "log" / "symphony.log") in caught.value.message
    assert "make the directory writable" in caught.value.message


class TestOnAFailingDisk:
    @pytest.fixture
    def small_disk(self, tmp_path):
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("no right to mount a file system")
        yield place
        subprocess.run(["umount", "-l", str(place)], check=True)

    def test_lines_go_to_stderr_while_the_disk_is_full_and_to_the_file_again_later(
        self, start, small_disk, stream
    ):
        handle = start(small_disk, level="info")
        log = get_logger("symphony")
        for number in range(200):
            log.info("line", number=number, padding="x" * 3000)
        self.settle(handle, lambda: "number=199" in stream.getvalue())
        assert "No space left" in handle.sink_error
        assert "can't write the log file" in stream.getvalue()
        handle.path.write_text("")
        log.info("after")
        self.settle(handle, lambda: handle.sink_error is None)
        assert "is written again" in stream.getvalue()
        written = lines_of(handle)
        assert written[-1].endswith("msg=after")

    @staticmethod
    def settle(handle, condition):
        """Wait for the listener's thread to have come so far."""
        waiter = threading.Condition()
        with waiter:
            for _ in range(1000):
                if condition():
                    return
                waiter.wait(0.01)
        raise AssertionError(f"did not come true; sink: {handle.sink_error}")


def test_a_closed_stderr_is_no_reason_to_stop(start, stream):
    handle = start(stderr="all")
    stream.close()
    get_logger("symphony").error("still here")
    assert len(lines_of(handle)) == 1


class Stuck(io.StringIO):
    """A stderr that takes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def write(self, text):
        self.entered.set()
        self.go.wait(20)
        return super().write(text)


def test_a_sink_that_hangs_never_blocks_the_caller_and_losses_are_counted(start):
    stuck = Stuck()
    handle = start(None, stderr="all", stream=stuck)
    log = get_logger("symphony")
    log.info("first")
    assert stuck.entered.wait(5)
    for _ in range(QUEUE_LIMIT + 50):
        log.info("more")
    assert handle.dropped_lines == 50
    stuck.go.set()
    closer = threading.Thread(target=handle.close)
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    assert stuck.getvalue().count("\n") == QUEUE_LIMIT + 1


def test_structlog_is_not_imported_before_it_is_needed():
    code = "import sys, symphony.observe.logs; sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_closing_restores_what_was_there(start):
    root, own = logging.getLogger(), logging.getLogger("symphony")
    before = (list(root.handlers), root.level, own.level)
    handle = start()
    assert (list(root.handlers), root.level, own.level) != before
    handle.close()
    handle.close()
    assert (list(root.handlers), root.level, own.level) == before


def test_what_waits_is_written_when_the_process_ends_without_closing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from symphony.observe.logs import *\n"
        "setup_logging(Path(sys.argv[1])); get_logger('symphony').info('last words')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=20)
    assert "last words" in (tmp_path / "log" / "symphony.log").read_text()
