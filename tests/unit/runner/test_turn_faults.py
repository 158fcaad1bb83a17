"""One fault has one code, however Codex words it; shapes as 0.163.0 and 0.169.0 send them."""

from __future__ import annotations

import json

import codex_app_server as codex
import pytest

from symphony.runner.outcomes import outcome_of
from symphony.runner.turn_faults import fault_of


def failed(code: str, message: str = "no", status: int | None = None) -> codex.TurnFailed:
    return codex.TurnFailed(message, thread_id="t", turn_id="u", code=code, http_status=status)


def body(code: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": code, "code": code}})


UNKNOWN = "The model `gpt-x` does not exist or you do not have access to it."
OF_THE_PLAN = "The 'gpt-x' model is not supported when using Codex with a ChatGPT account."


@pytest.mark.parametrize(
    ("error", "code", "retryable", "mend"),
    [
        (failed("unauthorized"), "unauthorized", False, "codex login"),
        (failed("httpConnectionFailed", status=401), "unauthorized", False, "codex login"),
        (failed("responseStreamDisconnected", status=403), "unauthorized", False, "codex login"),
        (failed("modelNotFound"), "modelNotFound", False, "codex.model"),
        (failed("httpConnectionFailed", UNKNOWN, 404), "modelNotFound", False, "codex.model"),
        (failed("other", body("model_not_found", "?")), "modelNotFound", False, "codex.model"),
        (failed("other", body("invalid", OF_THE_PLAN)), "modelNotFound", False, "codex.model"),
        (failed("other", body("invalid", "bad input")), "badRequest", False, "refuses"),
        (failed("httpConnectionFailed", "nope", 404), "badRequest", False, "refuses"),
        (failed("httpConnectionFailed", status=422), "badRequest", False, "refuses"),
        (failed("badRequest"), "badRequest", False, "refuses"),
        (failed("contextWindowExceeded"), "contextWindowExceeded", True, ""),
        (failed("usageLimitExceeded"), "usageLimitExceeded", True, "resets"),
        (failed("responseTooManyFailedAttempts", status=429), None, True, ""),
        (failed("rateLimitExceeded"), None, True, ""),
        (failed("internalServerError"), None, True, ""),
        (failed("serverOverloaded"), None, True, ""),
        (failed("httpConnectionFailed", status=502), None, True, ""),
        (failed("other", "stream disconnected before completion"), None, True, ""),
        (failed("other", "{not JSON"), None, True, ""),
        (failed("other", "[1]"), None, True, ""),
        (failed("cyberPolicy"), None, False, ""),
        (failed("ofTheFuture"), None, False, ""),
    ],
)
def test_a_failed_turn_is_understood(
    error: codex.TurnFailed, code: str | None, retryable: bool, mend: str
) -> None:
    fault = fault_of(error)
    assert (fault.code, fault.retryable) == (code or error.code, retryable)
    assert mend in fault.mend
    assert bool(mend) == bool(fault.mend)


def test_the_message_has_the_providers_words_and_then_the_mend() -> None:
    outcome = outcome_of(failed("other", body("model_not_found", UNKNOWN)))
    assert outcome.message.startswith(f"turn failed (modelNotFound): {UNKNOWN.rstrip('.')}; set ")
    assert "error" not in outcome.message
    long = outcome_of(failed("httpConnectionFailed", "word " * 500, 401)).message
    assert len(long) <= 600
    assert long.endswith("or mend the key of the model's provider")
