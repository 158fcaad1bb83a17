"""``symphony run``: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from symphony.errors import UsageError


def run_daemon(
    workflow: Path, *, port: int | None, logs_root: Path | None, instance: str | None
) -> int:
    """Run until stopped by a signal; return the exit status.

    Raises:
        UsageError: What was given can't be meant.
        SymphonyError: It can't start.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port: {port} is no port; give 0 to 65535")
    if logs_root is not None and not str(logs_root).strip():
        raise UsageError("--logs-root: the path is blank")
    if workflow.name == str(workflow) and not workflow.suffix and not workflow.exists():
        raise UsageError(
            f"{workflow}: neither a command (symphony --help lists them) nor a workflow file"
        )
    # Imports make no garbage; looking for it costs a tenth of the start. The daemon switches the
    # collector on again after its first poll.
    gc.disable()
    from symphony.observe.crashes import refuse_core_dumps
    from symphony.service import Daemon, DaemonOptions

    # It would hold the tracker's token, which lives in this process alone.
    refuse_core_dumps()
    daemon = Daemon(
        DaemonOptions(
            workflow_path=workflow.expanduser(),
            port=port,
            logs_root=None if logs_root is None else logs_root.expanduser(),
            instance=instance,
        )
    )
    asyncio.run(daemon.run())
    return 1 if daemon.failed else 0
