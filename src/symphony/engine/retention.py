"""Forgets ended runs that are older than the settings want them kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from symphony.errors import LedgerError
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.observe.logs import get_logger

_log = get_logger(__name__)

INTERVAL_S = 6 * 3600.0
DAY_S = 86_400.0


async def keep_pruned(
    ledger: Ledger, *, retention_days: Callable[[], int], clock: Callable[[], Instant]
) -> None:
    """Prune now and every few hours, until cancelled."""
    while True:
        before = clock().wall - retention_days() * DAY_S
        try:
            await ledger.prune(ended_before_wall=before)
        except LedgerError as error:
            _log.warning("Old runs could not be pruned", error=error.message)
        await asyncio.sleep(INTERVAL_S)
