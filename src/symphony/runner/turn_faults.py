"""What a failed turn means: one table from Codex's words to a code, a retry or none, and a mend.

Codex names the same fault differently in its versions and by the way it came: a refused login is
``unauthorized`` or ``httpConnectionFailed`` with 401, a model that is not there is
``modelNotFound``, a 404, or ``other`` with the provider's JSON as its words. Each gets one code
here, in Codex's spelling, so that retries, blocks and the breaker see one fault as one. Facts were
observed on 0.163.0 and 0.169.0; ``outcomes`` is the only caller.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import codex_app_server as codex

UNAUTHORIZED = "unauthorized"
BAD_MODEL = "modelNotFound"
BAD_REQUEST = "badRequest"
CONTEXT_WINDOW = "contextWindowExceeded"

_MENDS = {
    UNAUTHORIZED: "log in again with `codex login`, or mend the key of the model's provider",
    BAD_MODEL: "set codex.model (or the profile's model) in the workflow file, or model in Codex's "
    "config.toml, to one that this login may use",
    BAD_REQUEST: "the provider refuses the request as it is; see its words",
    "usageLimitExceeded": "nothing is started until the limit resets",
}

_AGAIN = {
    # Another run begins with an empty history.
    CONTEXT_WINDOW: True,
    UNAUTHORIZED: False,
    BAD_MODEL: False,
    BAD_REQUEST: False,
}

_BY_STATUS = {400: BAD_REQUEST, 401: UNAUTHORIZED, 403: UNAUTHORIZED, 404: BAD_REQUEST}
_BY_STATUS[422] = BAD_REQUEST
_MODEL_CODES = frozenset({"model_not_found", "model_not_available", "unsupported_model"})
_MODEL_WORDS = re.compile(
    r"\bmodel\b.{0,120}\b(does not exist|not found|is not supported|not available|no access)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFault:
    """One failed turn, understood.

    Attributes:
        code: In Codex's spelling, one for each kind of fault.
        said: The provider's or Codex's own words.
        retryable: Whether another run may succeed before a person acts.
        mend: What a person can do, or nothing.
    """

    code: str
    said: str
    retryable: bool
    mend: str = ""


def fault_of(error: codex.TurnFailed) -> TurnFault:
    """Return what a failed turn means."""
    provider = _provider_error(error.message) if error.code == "other" else None
    said = error.message
    if provider is not None:
        said = str(provider.get("message") or error.message)
    code = _code(error, said, provider)
    return TurnFault(
        code=code,
        said=said,
        retryable=_AGAIN.get(code, error.retryable),
        mend=_MENDS.get(code, ""),
    )


def _code(error: codex.TurnFailed, said: str, provider: dict[str, Any] | None) -> str:
    # Codex hands a 400 on as the provider's JSON, without its status.
    status = 400 if provider is not None else error.http_status
    code = _BY_STATUS.get(status or 0, error.code)
    names_model = (provider or {}).get("code") in _MODEL_CODES or _MODEL_WORDS.search(said)
    return BAD_MODEL if code == BAD_REQUEST and names_model else code


def _provider_error(text: str) -> dict[str, Any] | None:
    """Return the ``error`` object of a provider's JSON body, or None where the text is none."""
    if not text.startswith("{"):
        return None
    try:
        body = json.loads(text)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": error}
