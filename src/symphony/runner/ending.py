"""How long a run's end may take, and a turn that ends also where its app-server is deaf.

Invariant: a stop is over within ``INTERRUPT_S`` and ``HASTY_GRACE_S``, whatever the agent does; a
turn that a limit, a question or silence has ended spends nothing more. Used by ``attempt``,
``watching``, ``requests`` and ``budget``; the client library interrupts, the host ends processes.

What is cut off is not lost: Codex writes a thread down line by line as it happens, so the next run
resumes it also after a KILL (SPEC 10.3); at most a line that was being written is gone.
"""

from __future__ import annotations

import logging
from typing import Final

import codex_app_server as codex

_log = logging.getLogger(__name__)

INTERRUPT_S: Final = 1.5
"""How long an interrupted turn may take to end before its app-server is ended instead.

Codex 0.169 answers within 3 ms in 95 of 100 cases; ending its background commands and writing the
thread down takes some ten more. The rest is for a machine that is busy with other agents.
"""

STOP_GRACE_S: Final = 5.0
"""From closing stdin to KILL where a run ends by itself; TERM after half of it."""

HASTY_GRACE_S: Final = 1.0
"""The same where a run was stopped, or its app-server is deaf.

Somebody waits for it, and nothing of value is under way: the turn has been interrupted, and Codex
exits within 0.04 s of the end of its input.
"""


class EndableTurn:
    """A turn whose interrupt works in any case: what does not obey loses its connection.

    Args:
        turn: As the session gives it.
        connection: It belongs to this turn's run alone.
        name: Of the run, for the log.
    """

    def __init__(self, turn: codex.Turn, connection: codex.Connection, *, name: str) -> None:
        self._turn = turn
        self._connection = connection
        self._name = name

    @property
    def waiting(self) -> bool:
        """Whether it waits for a person."""
        return self._turn.waiting

    async def interrupt(self) -> None:
        """End the turn; where the app-server ignores that, end the connection and so the run."""
        try:
            await self._turn.interrupt()
        except codex.CodexError:
            # The turn has ended already, or its server is gone: both are ends.
            return
        if not self._turn.done:
            tell_cut_off(self._name)
            await self._connection.aclose()


def tell_cut_off(name: str) -> None:
    """Say that an agent is ended the hard way: most times because it ignored the interrupt."""
    _log.warning("Agent did not end its turn; its processes are ended", extra={"run_id": name})
