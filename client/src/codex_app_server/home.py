"""Prepares a private CODEX_HOME: a folder that Codex may write to without touching the user's own.

Codex writes trust marks, accepted command rules and its threads into its home, and these apply to
every later thread; so a program that drives it has a home apart. Invariants: the folder is mode
0700 and outside of the temp directory (Codex's Linux sandbox fails below it); a login is shared by
a symbolic link, never copied, because two copies would refresh one token against each other.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codex_app_server.checks import FLAG, PATH, TABLE, TEXT, check_values, optional
from codex_app_server.errors import CodexError

__all__ = [
    "HomeError",
    "config_arguments",
    "login_home",
    "prepare_home",
    "provider_config",
    "write_config",
]


class HomeError(CodexError):
    """A folder cannot serve as CODEX_HOME; the message says what to change."""


def login_home(environment: Mapping[str, str] | None = None) -> Path:
    """Return the home that holds the user's login: ``$CODEX_HOME``, or ``~/.codex``."""
    check_values(environment=(environment, optional(TABLE)))
    environment = os.environ if environment is None else environment
    named = environment.get("CODEX_HOME")
    if named:
        return Path(named)
    user = environment.get("HOME")
    return (Path(user) if user else Path.home()) / ".codex"


def prepare_home(
    home: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    seed: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Create a private home, or bring an existing one up to date.

    ``auth.json`` of the source becomes a symbolic link, ``config.toml`` is copied anew. What else
    is in the home stays; so does an ``auth.json`` that is a file of its own (a separate login).

    Args:
        home: The folder; its parents are created.
        source: The home to seed from; ``login_home(environment)`` by default.
        seed: False leaves login and configuration out.
        environment: That of the Codex process, for CODEX_HOME, HOME and TMPDIR; the process's own
            by default.

    Returns:
        The absolute path, to be passed as CODEX_HOME.

    Raises:
        HomeError: The folder lies below a temp directory, is no folder, or cannot be written.
    """
    check_values(
        home=(home, PATH),
        source=(source, optional(PATH)),
        seed=(seed, FLAG),
        environment=(environment, optional(TABLE)),
    )
    environment = os.environ if environment is None else environment
    path = Path(home).expanduser().absolute()
    _refuse_temp(path, environment)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) != 0o700:
            path.chmod(0o700)
        if seed:
            _seed(path, Path(source).expanduser() if source else login_home(environment))
    except OSError as error:
        raise HomeError(f"cannot use {path} as CODEX_HOME: {error}") from error
    return path


def provider_config(
    base_url: str,
    *,
    model: str,
    provider: str = "custom",
    provider_options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a configuration that sends Codex to a server of the Responses API.

    Args:
        base_url: Of the API, for example ``http://127.0.0.1:8000/v1``.
        model: The model to ask for; an unknown one costs a warning only.
        provider: Key of the provider.
        provider_options: More keys of the provider, such as ``request_max_retries``.
        settings: More keys of the configuration; tables are nested mappings.
    """
    check_values(
        base_url=(base_url, TEXT),
        model=(model, TEXT),
        provider=(provider, TEXT),
        provider_options=(provider_options, optional(TABLE)),
        settings=(settings, optional(TABLE)),
    )
    entry = {"name": provider, "base_url": base_url, "wire_api": "responses"}
    return {
        "model": model,
        "model_provider": provider,
        **(settings or {}),
        "model_providers": {provider: {**entry, **(provider_options or {})}},
    }


def write_config(home: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Write ``config.toml`` of a home, replacing what is there, and return its path.

    Raises:
        HomeError: A value that TOML cannot hold (named by its path), or the disk's refusal.
    """
    check_values(home=(home, PATH), config=(config, TABLE))
    text = "\n".join(_toml_lines(config, ())) + "\n"
    target = Path(home) / "config.toml"
    try:
        _replace(target, text.encode())
    except OSError as error:
        raise HomeError(f"cannot write {target}: {error}") from error
    return target


def config_arguments(config: Mapping[str, Any]) -> list[str]:
    """Return ``-c key=value`` arguments for Codex, one for each leaf of the configuration.

    Args:
        config: Dotted keys (``features.web_search``) or nested mappings, in any mixture. A name
            with a dot in it cannot be expressed on Codex's command line.

    Raises:
        HomeError: A value that TOML cannot hold, named by its path.
    """
    check_values(config=(config, TABLE))
    arguments: list[str] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            arguments += config_arguments({f"{key}.{name}": one for name, one in value.items()})
        else:
            arguments += ["-c", f"{key}={_toml_value(value, (key,))}"]
    return arguments


def _refuse_temp(path: Path, environment: Mapping[str, str]) -> None:
    import tempfile  # late: costly, and not always needed

    temp = {tempfile.gettempdir(), "/tmp", environment.get("TMPDIR") or "/tmp"}
    for folder in sorted(temp):
        if path.resolve().is_relative_to(Path(folder).resolve()):
            raise HomeError(
                f"CODEX_HOME {path} lies below the temp directory {folder}, where the sandbox of "
                "Codex fails: choose a folder elsewhere, for example in ~/.cache"
            )


def _seed(home: Path, source: Path) -> None:
    if source.exists() and home.samefile(source):
        return
    login, link = source.absolute() / "auth.json", home / "auth.json"
    if link.is_symlink():
        link.unlink()
    if login.is_file() and not link.exists():
        # Another process may prepare the same home at this moment; its link is as good.
        with contextlib.suppress(FileExistsError):
            link.symlink_to(login)
    settings = source / "config.toml"
    if settings.is_file():
        _replace(home / "config.toml", settings.read_bytes())


def _replace(target: Path, content: bytes) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new content, never a part."""
    import tempfile  # late: costly, and not always needed

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return a table's own values, then its tables, each under its header."""
    lines = []
    for key, value in table.items():
        if not isinstance(value, Mapping):
            lines.append(f"{_toml_key(key)} = {_toml_value(value, (*path, key))}")
    for key, value in table.items():
        if isinstance(value, Mapping):
            header = ".".join(_toml_key(part) for part in (*path, key))
            lines += ["", f"[{header}]", *_toml_lines(value, (*path, key))]
    return lines


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _toml_string(key, (key,))


def _toml_string(text: str, path: tuple[str, ...]) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HomeError(f"config.toml: {'.'.join(path)} is no valid text: {error}") from error
    import json  # late: costly, and not always needed

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value, path)
    if isinstance(value, int | float) and value == value and abs(value) != float("inf"):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(one, path) for one in value) + "]"
    raise HomeError(f"config.toml: {'.'.join(path)} cannot be {value!r}")
