"""The command line of ``codex exec``: what a run is to do, in the words that exec takes.

Invariants: the prompt is no argument, so no process list shows it; an option that exec refuses by
now is translated, with a warning that names it; a schema is in a file only while the run lasts.

Made by `codex_app_server.exec`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from codex_app_server import values
from codex_app_server.checks import (
    COUNT,
    FLAG,
    NAMES,
    PATH,
    TABLE,
    TEXT,
    Checks,
    is_path,
    is_text,
    optional,
    or_none,
)
from codex_app_server.errors import CodexError, InvalidArgument
from codex_app_server.protocol.rpc import encode_message
from codex_app_server.turn_result import TURN_CHECKS, TurnTimeouts

__all__ = [
    "RUN_CHECKS",
    "ExecOrder",
    "approval_config",
    "encoded_prompt",
    "flag_words",
    "schema_file",
    "translated_arguments",
]

LAST = "last"
RUN_CHECKS: Checks = {
    "prompt": TEXT,
    "resume": ("a thread's id or name, last, or None", or_none(is_text)),
    "cwd": optional(PATH),
    "model": optional(TEXT),
    "output_schema": optional(TABLE),
    "config": optional(TABLE),
    "images": (
        "a list of paths",
        lambda value: (
            isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_path, value))
        ),
    ),
    "skip_git_repo_check": FLAG,
    "ephemeral": FLAG,
    "arguments": NAMES,
    "timeouts": ("TurnTimeouts or None", or_none(lambda one: isinstance(one, TurnTimeouts))),
    "overflow": TURN_CHECKS["overflow"],
    "queue_limit": COUNT,
    "keep_items": FLAG,
}


class ExecOrder(Struct, frozen=True):
    """What a run is to do.

    Attributes:
        stdin: The prompt, encoded.
        words: Arguments of ``codex exec``.
        resume: Id or name of a thread, ``"last"``, or None for a new one.
        schema: JSON Schema of the final message, or None.
    """

    stdin: bytes
    words: tuple[str, ...]
    resume: str | None
    schema: Mapping[str, Any] | None

    def command(self, schema_path: str | None) -> list[str]:
        """Return the words after ``codex``; the schema lies in that file."""
        words = ["exec", *self.words]
        if schema_path is not None:
            words += ["--output-schema", schema_path]
        if self.resume == LAST:
            words += ["resume", "--last"]
        elif self.resume is not None:
            words += ["resume", self.resume]
        return [*words, "-"]


def encoded_prompt(prompt: str) -> bytes:
    """Return a prompt as stdin takes it.

    Raises:
        InvalidArgument: It is blank, or has a lone surrogate.
    """
    if not prompt.strip():
        raise InvalidArgument("prompt is empty: codex exec would refuse it")
    try:
        return prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "prompt: text with a lone surrogate cannot be sent; decode it with errors='replace'"
        ) from error


def approval_config(policy: Any, warnings: list[str]) -> dict[str, Any]:
    """Return a policy as configuration, which is how exec takes it."""
    policy = values.approval_policy(policy, warnings)
    if policy not in (None, "never"):
        warnings.append(f"approval_policy: exec asks nobody, so {policy!r} means to refuse")
    return {} if policy is None else {"approval_policy": policy}


def flag_words(flags: Mapping[str, str | os.PathLike[str] | None]) -> list[str]:
    """Return flags and their values as words, those without a value left out."""
    pairs = ((flag, os.fspath(value)) for flag, value in flags.items() if value is not None)
    return [word for pair in pairs for word in pair]


def translated_arguments(
    arguments: Sequence[str], warnings: list[str]
) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments that exec takes, and as configuration those that it once took."""
    kept: list[str] = []
    config: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name in ("--ask-for-approval", "-a"):
            value = value or next(words, "")
            if not value:
                raise InvalidArgument(f"arguments: {name} lacks its policy, such as never")
            config["approval_policy"] = values.approval_policy(value, warnings)
            warnings.append(f"arguments: exec refuses {name}, sent -c approval_policy={value}")
        elif word == "--full-auto":
            kept += ["--sandbox", "workspace-write"]
            warnings.append("arguments: --full-auto is gone, sent --sandbox workspace-write")
        else:
            kept.append(word)
    return kept, config


@contextlib.contextmanager
def schema_file(schema: Mapping[str, Any] | None) -> Iterator[str | None]:
    """Write a schema to a file of its own while the block runs."""
    if schema is None:
        yield None
        return
    content = encode_message(schema)
    try:
        import tempfile  # late: costly, and not always needed

        handle, path = tempfile.mkstemp(prefix="codex-schema-", suffix=".json")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        raise CodexError(f"cannot write the output schema: {error.strerror}") from error
    try:
        yield path
    finally:
        os.unlink(path)
