"""Which model Codex is going to use, as far as its command and its configuration tell.

Role: lets a limit in USD without a price be refused when the workflow is read. Invariant: no guess:
what is not written plainly is None, and the run itself finds out. A fault of Codex's own files is
Codex's to tell. ``checking`` asks.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class NamedModel(NamedTuple):
    """A model, and where it is written."""

    name: str
    place: str


def model_of(command: str, environ: Mapping[str, str]) -> NamedModel | None:
    """Return the model of a command line of Codex: its options first, then its configuration."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    options = _options(words)
    if "model" in options:
        return NamedModel(options["model"], "codex.command")
    if not words or not os.path.basename(words[0]).startswith("codex"):
        # A wrapper may choose another home, another profile or another agent.
        return None
    path = _home(environ) / "config.toml"
    config = _read(path)
    profile = options.get("profile") or config.get("profile")
    profiles = config.get("profiles")
    chosen = profiles.get(profile) if isinstance(profiles, Mapping) else None
    for table in (chosen, config):
        model = table.get("model") if isinstance(table, Mapping) else None
        if isinstance(model, str) and model:
            return NamedModel(model, str(path))
    return None


def _options(words: list[str]) -> dict[str, str]:
    """Return ``model`` and ``profile`` as options or overrides (``-c model=...``) set them."""
    found: dict[str, str] = {}
    flags = {"-m": "model", "--model": "model", "-p": "profile", "--profile": "profile"}
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        following = words[index + 1] if index + 1 < len(words) else ""
        if name in flags:
            found[flags[name]] = value or following
        elif name in ("-c", "--config"):
            key, _, setting = (value or following).partition("=")
            if key.strip() in ("model", "profile"):
                found[key.strip()] = setting.strip().strip("\"'")
    return {name: value for name, value in found.items() if value and "$" not in value}


def _home(environ: Mapping[str, str]) -> Path:
    named = environ.get("CODEX_HOME")
    if named:
        return Path(named)
    return Path(environ.get("HOME") or os.path.expanduser("~")) / ".codex"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
