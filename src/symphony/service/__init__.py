"""The composition root: one daemon, built of its parts, run, and taken down in stages."""

from symphony.service.daemon import Daemon
from symphony.service.options import DaemonOptions

__all__ = ["Daemon", "DaemonOptions"]
