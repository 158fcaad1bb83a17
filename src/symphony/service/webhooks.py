"""Which webhooks the daemon takes, and the secrets of the settings: by name for agents and hooks,
which must not inherit them, and by value for the log, which must not write them.

Neighbours: ``web.webhooks`` judges deliveries; ``parts`` and ``following`` call this at the start
and at each reload.
"""

from __future__ import annotations

import time

from symphony.config.checking import WEBHOOK_KINDS
from symphony.config.settings import Settings
from symphony.config.state_dir import StateDir
from symphony.config.store import WorkflowStore
from symphony.engine.trackers import TrackerSlot
from symphony.observe.logs import LogHandle
from symphony.service.options import DaemonOptions
from symphony.web.marks import Marks
from symphony.web.webhooks import WebhookConfig, Webhooks


def take_webhooks(
    store: WorkflowStore, options: DaemonOptions, logs: LogHandle, state_dir: StateDir
) -> Webhooks:
    """Return the judge of deliveries, which follows the settings in force."""
    register_secrets(store.current.settings, options, logs)
    return Webhooks(
        config=lambda: webhook_config(store.current.settings, options),
        wall=time.time,
        marks=Marks(state_dir.root / "webhooks.seen"),
    )


def register_secrets(settings: Settings, options: DaemonOptions, logs: LogHandle) -> None:
    """Tell the log which values of the settings it must never write, beside the tracker's."""
    logs.redactor.add(*(options.environ.get(name) for name in settings.secret_environment_names))


def secret_names(store: WorkflowStore, trackers: TrackerSlot) -> tuple[str, ...]:
    """Return the variables that hooks and git must not inherit."""
    return (
        *trackers.current.secret_environment_names,
        *store.current.settings.secret_environment_names,
    )


def webhook_config(settings: Settings, options: DaemonOptions) -> WebhookConfig | None:
    """Return whose webhooks these settings take, or None."""
    name = settings.webhooks.secret_name
    secret = "" if name is None else options.environ.get(name, "").strip()
    if not secret or settings.tracker.kind not in WEBHOOK_KINDS:
        return None
    return WebhookConfig(settings.tracker.kind, secret, settings.webhooks.silence_s)
