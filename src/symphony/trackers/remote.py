"""What the trackers over HTTP do alike: who they are, what they hide, how they close.

Role: the base of the five remote adapters; each adds its reads, its checks and its tool.
Invariant: a tracker has one HTTP client, whose connections end with it.
Neighbours: ``base`` says what a tracker is, ``http`` sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from symphony.errors import SettingFault, TrackerError

from .base import Trial
from .http import HttpClient


class _Settings(Protocol):
    @property
    def secret_environment_names(self) -> Sequence[str]: ...


class _Reads(Protocol):
    @property
    def trial(self) -> Trial: ...


S = TypeVar("S", bound=_Settings)
R = TypeVar("R", bound=_Reads)


class RemoteTracker(Generic[S, R]):
    """A tracker that is polled over HTTP.

    Args:
        settings: The adapter's settings.
        http: The HTTP layer; sends the token.
        reads: The adapter's requests.

    Attributes:
        kind: The value of ``tracker.kind``.
        http: The HTTP layer, which counts and is told limits.
    """

    kind: str

    def __init__(self, settings: S, http: HttpClient, reads: R) -> None:
        self.http = http
        self._settings = settings
        self._reads = reads

    @property
    def secret_environment_names(self) -> Sequence[str]:
        """The adapter's own variables and those that the settings name; agents inherit none."""
        return self._settings.secret_environment_names

    @property
    def trial(self) -> Trial:
        """Stops state reads at their first page, for ``symphony tracker test``."""
        return self._reads.trial

    def changes(self) -> None:
        """It is polled; there is no watch."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()


def refusal(faults: Sequence[SettingFault], *, missing_secret: str) -> TrackerError:
    """The error of settings from which no tracker can be built.

    Args:
        faults: All of them.
        missing_secret: The name of the fault that a missing token is.
    """
    missing = any(missing_secret in fault.problem for fault in faults)
    category = "missing_tracker_secret" if missing else "invalid_tracker_config"
    return TrackerError(category, "; ".join(str(fault) for fault in faults))
