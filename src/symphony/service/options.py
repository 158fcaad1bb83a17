"""What the command line decides about a daemon, and its clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from symphony.model.clock import Instant


def read_clock() -> Instant:
    """Read both clocks."""
    return Instant(time.monotonic(), time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What the command line decides.

    Attributes:
        port: TCP port of the API, over ``server.port``; None leaves that to the workflow.
        logs_root: Where ``log/symphony.log`` goes, or None for the state directory.
        instance: A name for the state directory, or None for one made of the workflow's path.
        show_terminal: Whether the terminal view may take the terminal.
        quiet: Whether the log goes to its file only, terminal view or not.
        environ: The environment; secrets are looked up in it.
        on_ready: Called with the dashboard's address, or None, once the API answers.
    """

    workflow_path: Path
    port: int | None = None
    logs_root: Path | None = None
    instance: str | None = None
    show_terminal: bool = True
    quiet: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    on_ready: Callable[[str | None], None] = lambda url: None
