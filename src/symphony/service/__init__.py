"""The composition root: one daemon, built of its parts, run, and taken down in stages."""

from symphony.service.daemon import Daemon, DaemonOptions

__all__ = ["Daemon", "DaemonOptions"]
