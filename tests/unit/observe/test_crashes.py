"""Uncaught exceptions are told without secrets, whoever drops them."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

from symphony.observe.logs import setup_logging
from symphony.observe.redaction import Redactor

SECRET = "ghp_0a1B2c3D4e5F"
PROGRAM = f"""
import resource
from symphony.observe.crashes import refuse_core_dumps
from symphony.observe.logs import setup_logging
from symphony.observe.redaction import Redactor

token = "{SECRET}"
logs = setup_logging(None, redactor=Redactor([token]))
refuse_core_dumps()
logs.close()
assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
raise RuntimeError("the end of " + token)
"""


class Dropping:
    """Something whose end fails."""

    def __del__(self) -> None:
        raise ValueError(f"dropped {SECRET}")


def test_what_ends_the_process_is_told_without_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "RuntimeError: the end of [redacted]" in done.stderr
    assert "Traceback" in done.stderr
    assert SECRET not in done.stderr


def test_what_a_thread_or_a_finaliser_drops_is_a_line_of_the_log() -> None:
    before = (threading.excepthook, sys.unraisablehook)
    stream = io.StringIO()
    logs = setup_logging(None, redactor=Redactor([SECRET]), stream=stream)

    def end() -> None:
        raise LookupError(f"a thread with {SECRET}")

    try:
        thread = threading.Thread(target=end, name="worker-7")
        thread.start()
        thread.join()
        dropping = Dropping()
        del dropping
    finally:
        logs.close()
    said = stream.getvalue()
    assert "LookupError: a thread with [redacted]" in said
    assert "thread_name=worker-7" in said
    assert "ValueError: dropped [redacted]" in said
    assert SECRET not in said
    assert (threading.excepthook, sys.unraisablehook) == before
