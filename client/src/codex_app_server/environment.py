"""Which environment a Codex process gets, and how its secrets are kept out of texts.

Invariants: what the caller gives explicitly wins over what is inherited; a variable that is
removed from the inherited ones never reaches the process, and its value never appears in a text
that passed `Redactor.clean`. Pure but for the default environment.

Used by `codex_app_server.launch`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from msgspec import Struct

from codex_app_server.checks import NAMES, TABLE, check_values, one_of, optional
from codex_app_server.errors import InvalidArgument

__all__ = ["BASIC_NAMES", "EnvMode", "LaunchEnvironment", "Redactor", "launch_environment"]

EnvMode = Literal["merge", "replace", "allow"]
MODES = ("merge", "replace", "allow")

BASIC_NAMES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TERM",
    "TZ",
    "TMPDIR",
    "XDG_*",
    "SSL_CERT_*",
    "CODEX_HOME",
)
"""What ``env_mode="allow"`` lets through where no list is given."""

SECRET_NAMES = ("*KEY", "*KEY_ID", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")
MASK = "[redacted]"
SHORTEST_SECRET = 6


class LaunchEnvironment(Struct, frozen=True):
    """An environment for a process.

    Attributes:
        variables: The whole environment.
        secrets: Values that must not appear in texts: those of removed variables, and of given
            ones whose names tell that they hold a secret.
    """

    variables: dict[str, str]
    secrets: tuple[str, ...]


def launch_environment(
    env: Mapping[str, str] | None = None,
    *,
    mode: EnvMode = "merge",
    allow: Sequence[str] = BASIC_NAMES,
    remove_secrets: Sequence[str] = (),
    inherited: Mapping[str, str] | None = None,
) -> LaunchEnvironment:
    """Compose the environment of a process.

    Args:
        env: Given explicitly; passed whatever the other arguments say.
        mode: ``merge`` adds ``env`` to what is inherited, ``replace`` passes nothing else,
            ``allow`` inherits only the names of ``allow``.
        allow: Names and patterns (``LC_*``) for ``allow``.
        remove_secrets: Names and patterns of inherited variables that are left out, in any case
            of letters.
        inherited: Our own environment by default.

    Raises:
        InvalidArgument: An unknown mode, or a name or value that is no text for an environment.
    """
    check_values(
        env=(env, optional(TABLE)),
        mode=(mode, one_of(*MODES)),
        allow=(allow, NAMES),
        remove_secrets=(remove_secrets, NAMES),
        inherited=(inherited, optional(TABLE)),
    )
    _check(env or {})
    inherited = os.environ if inherited is None else inherited
    removed = {name for name in inherited if _matches(name, remove_secrets)}
    variables = {}
    if mode != "replace":
        variables = {
            name: value
            for name, value in inherited.items()
            if name not in removed and (mode == "merge" or _matches(name, allow))
        }
    variables |= env or {}
    secrets = {inherited[name] for name in removed}
    secrets |= {value for name, value in variables.items() if _matches(name, SECRET_NAMES)}
    return LaunchEnvironment(variables, tuple(sorted(secrets)))


def _check(env: Mapping[Any, Any]) -> None:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgument(f"env[{name!r}]={value!r}: names and values are strings")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidArgument(f"env[{name!r}]: no '=' in a name, no NUL in either")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    upper = name.upper()
    return any(fnmatchcase(upper, pattern.upper()) for pattern in patterns)


class Redactor:
    """Masks given values in texts.

    Values shorter than six characters are left alone: masking them would garble everything.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {value.strip() for value in secrets}
        # The longest first: one secret may begin with another.
        known = sorted((v for v in values if len(v) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None
        self.longest = len(known[0]) if known else 0

    def clean(self, text: str, *, cut: bool = False) -> str:
        """Return the text with its secrets masked.

        Args:
            text: To be cleaned.
            cut: The text's beginning was cut off, perhaps within a secret: what could be the rest
                of one is left out, up to the next line.
        """
        if cut:
            _, _, text = text[self.longest :].partition("\n")
        return text if self._pattern is None else self._pattern.sub(MASK, text)
