"""Webhooks of trackers: each is judged by its signature and does nothing but wake the poll.

Role: says of one delivery whether the provider sent it, now, and for the first time.
Invariant: what a delivery says is never used beyond the instant that its provider signs; secrets
are compared in constant time; memory is bounded whatever arrives.
Neighbours: ``app`` reads the body and answers; ``service`` knows the secret and shows ``problem``.

Sources of the schemes: docs.github.com "Validating webhook deliveries"; linear.app/developers
"Webhooks"; developer.atlassian.com Jira Cloud "Webhooks" (secure admin webhooks); docs.gitlab.com
"Webhooks", whose signing tokens follow the Standard Webhooks specification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from .marks import Marks

__all__ = ["MAX_WEBHOOK_BYTES", "Verdict", "WebhookConfig", "Webhooks"]

MAX_WEBHOOK_BYTES: Final = 1 << 20
"""An issue with its description fits many times; larger bodies are refused with 413."""

REPLAY_WINDOW_S: Final = {"linear": 60.0, "gitlab": 300.0}
"""How far a signed instant may be off: Linear names a minute, Standard Webhooks five."""

WARN_EVERY_S: Final = 60.0
"""Rejected deliveries are logged at most this often: anybody can send them."""

_SIGNING_TOKEN: Final = "whsec_"
_log = logging.getLogger("symphony.web.webhooks")

Code = Literal[
    "accepted",
    "duplicate",
    "webhook_not_configured",
    "webhook_signature_missing",
    "webhook_signature_invalid",
    "webhook_stale",
    "webhook_too_large",
]


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Whose webhooks are taken.

    Attributes:
        kind: The tracker's kind, which is the last part of the path.
        secret: What the provider signs with.
        silence_s: Seconds without a delivery after which something is held to be wrong.
    """

    kind: str
    secret: str = field(repr=False)
    silence_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a delivery: a stable code, and a sentence for whoever sent it."""

    code: Code
    message: str = ""

    @property
    def taken(self) -> bool:
        """Whether the provider is told that all is well."""
        return self.code in ("accepted", "duplicate")


class Webhooks:
    """Judges deliveries and keeps what an operator should know of them.

    Args:
        config: What is in force now; None where no webhooks are taken.
        wall: Epoch seconds.
        marks: What came before; None remembers in memory alone.
    """

    def __init__(
        self,
        *,
        config: Callable[[], WebhookConfig | None],
        wall: Callable[[], float],
        marks: Marks | None = None,
    ) -> None:
        self._config = config
        self._wall = wall
        self._marks = marks if marks is not None else Marks()
        self._heard_wall = wall()
        self._accepted = False
        self._rejected = 0
        self._last_reason = ""
        self._last_code: Code = "accepted"
        self._warned_wall: float | None = None
        self._silence_told = False

    def judge(self, kind: str, headers: Mapping[str, str], body: bytes) -> Verdict:
        """Judge one delivery; the caller wakes the poll where it is ``accepted``.

        Args:
            kind: The last part of the path.
            headers: Names in lower case.
            body: As it came, at most ``MAX_WEBHOOK_BYTES``.
        """
        config = self._config()
        if config is None or config.kind != kind:
            return Verdict("webhook_not_configured", f"No webhooks of {kind!r} are taken here.")
        fault = _fault(kind, headers, body, config.secret, self._wall())
        if fault is not None:
            self._reject(kind, fault)
            return fault
        self._rejected = 0
        if self._marks.add(_marks(kind, headers, body)):
            # Whoever repeats an old delivery can't hide that no new one comes.
            return Verdict("duplicate")
        self._heard_wall = self._wall()
        self._silence_told, self._accepted = False, True
        return Verdict("accepted")

    def too_large(self, kind: str) -> None:
        """Take note of a delivery that nobody read: what it told of waits for the next poll.

        Nothing shows that the provider sent it, so it counts as a rejected one.
        """
        config = self._config()
        if config is not None and config.kind == kind:
            most = f"{MAX_WEBHOOK_BYTES >> 20} MiB"
            self._reject(kind, Verdict("webhook_too_large", f"It was larger than {most}."))

    def forget(self, kind: str, headers: Mapping[str, str], body: bytes) -> None:
        """Take back that a delivery came: it woke nothing, so that it may come again."""
        self._marks.drop(_marks(kind, headers, body))

    @property
    def wakes(self) -> bool:
        """Whether deliveries come and are well, so that the poll need not look often by itself."""
        return self._accepted and self._config() is not None and self.problem() is None

    def problem(self) -> str | None:
        """Return what an operator should look at, or None: rejected deliveries, or silence."""
        config = self._config()
        if config is None:
            return None
        if self._rejected:
            mend = "Compare webhooks.secret with the tracker's setting."
            if self._last_code == "webhook_too_large":
                mend = "Have the tracker leave fields out of its deliveries, if it can."
            return (
                f"{self._rejected} webhook deliveries were rejected since the last good one: "
                f"{self._last_reason} {mend}"
            )
        silent_s = self._wall() - self._heard_wall
        if silent_s < config.silence_s:
            return None
        problem = (
            f"no webhook of {config.kind} has come for {silent_s / 3600:.0f} h; polling goes on. "
            "Look at the deliveries in the tracker's webhook settings."
        )
        if not self._silence_told:
            self._silence_told = True
            _log.warning("Webhooks are silent", extra={"problem": problem})
        return problem

    def _reject(self, kind: str, fault: Verdict) -> None:
        self._rejected += 1
        self._last_reason, self._last_code = fault.message, fault.code
        now = self._wall()
        if self._warned_wall is None or now - self._warned_wall >= WARN_EVERY_S:
            self._warned_wall = now
            _log.warning(
                "Webhook delivery rejected",
                extra={"kind": kind, "code": fault.code, "rejected": self._rejected},
            )


def _fault(
    kind: str, headers: Mapping[str, str], body: bytes, secret: str, now: float
) -> Verdict | None:
    """Return why a delivery is rejected, or None."""
    match kind:
        case "github":
            given = headers.get("x-hub-signature-256")
            return _compared(given, _prefixed(secret, body))
        case "jira":
            return _compared(headers.get("x-hub-signature"), _prefixed(secret, body))
        case "linear":
            given, expected = headers.get("linear-signature"), _hex(secret, body)
            return _compared(given, expected) or _stale(kind, _linear_instant(body), now)
        case "gitlab" if secret.startswith(_SIGNING_TOKEN):
            return _standard_fault(headers, body, secret) or _stale(
                kind, _seconds(headers.get("webhook-timestamp")), now
            )
        case "gitlab":
            # The older secret token is no signature: GitLab sends it along as it is.
            return _compared(headers.get("x-gitlab-token"), secret)
        case _:
            return Verdict("webhook_not_configured", f"{kind!r} has no webhooks here.")


def _compared(given: str | None, expected: str) -> Verdict | None:
    if not given:
        return Verdict("webhook_signature_missing", "The delivery is not signed.")
    # Bytes: a text with other than ASCII can't be compared in constant time.
    if hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace")):
        return None
    return Verdict("webhook_signature_invalid", "The signature does not match.")


def _standard_fault(headers: Mapping[str, str], body: bytes, secret: str) -> Verdict | None:
    """Judge a delivery by the Standard Webhooks specification; any of its signatures may match."""
    try:
        key = base64.b64decode(secret.removeprefix(_SIGNING_TOKEN), validate=True)
    except (binascii.Error, ValueError):
        key = secret.encode()
    signed = f"{headers.get('webhook-id', '')}.{headers.get('webhook-timestamp', '')}."
    digest = hmac.new(key, signed.encode("utf-8", "replace") + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    faults = [_compared(given, expected) for given in headers.get("webhook-signature", "").split()]
    return None if None in faults else faults[0] if faults else _compared(None, expected)


def _stale(kind: str, signed_wall: float | None, now: float) -> Verdict | None:
    if signed_wall is not None and abs(now - signed_wall) <= REPLAY_WINDOW_S[kind]:
        return None
    return Verdict("webhook_stale", "The signed time is missing or too far from this clock.")


def _linear_instant(body: bytes) -> float | None:
    """Return ``webhookTimestamp`` (milliseconds, inside the signed body) as epoch seconds."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = content.get("webhookTimestamp") if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > 53:
        return None
    return value / 1000


def _seconds(text: str | None) -> float | None:
    plain = text is not None and text.isascii() and text.isdecimal() and len(text) < 16
    return float(text) if plain and text is not None else None


def _marks(kind: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """Return what a delivery is known by: its id, and its content where the id is not signed."""
    id_header = {
        "github": "x-github-delivery",
        "linear": "linear-delivery",
        "jira": "x-atlassian-webhook-identifier",
        "gitlab": "idempotency-key",
    }[kind]
    given = headers.get(id_header) or headers.get("webhook-id")
    # Hashed, so that a long id takes no more memory than a short one.
    marks = [] if not given else [_digest(b"id:", given.encode("utf-8", "replace"))]
    # A thief of one delivery could give it another id, but not another content.
    return [*marks, _digest(b"body:", body)] if body else marks


def _digest(label: bytes, content: bytes) -> str:
    return hashlib.sha256(label + content).hexdigest()


def _hex(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode("utf-8", "replace"), body, hashlib.sha256).hexdigest()


def _prefixed(secret: str, body: bytes) -> str:
    return f"sha256={_hex(secret, body)}"
