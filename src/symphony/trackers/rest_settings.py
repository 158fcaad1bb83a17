"""Reading ``tracker.provider`` of the REST trackers: ``$NAME``, addresses, states, all faults.

Pure: the environment comes in as a mapping. Each reader appends its faults to ``faults`` and
returns a usable value or an empty one, so that a person sees everything that is wrong at once.
The reference's name of a fault stands in brackets at its end.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from symphony.errors import SettingFault
from symphony.model.issue import normalize_state

REFERENCE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class ProviderReader:
    """One pass over a provider map.

    Attributes:
        provider: As written.
        environ: Where ``$NAME`` is looked up.
        faults: Collected, in the order of the reads.
    """

    provider: Mapping[str, Any]
    environ: Mapping[str, str]
    faults: list[SettingFault] = field(default_factory=list)

    def fault(self, key: str, problem: str, value: object = None) -> None:
        """Add a fault of ``tracker.provider.<key>``; ``value`` is shown, so never a secret."""
        self.faults.append(SettingFault(f"tracker.provider.{key}", problem, shown(value)))

    def known_keys(self, keys: Collection[str]) -> None:
        """A key that the adapter does not know is a fault, with the nearest one that it knows."""
        for key in self.provider:
            if key not in keys:
                near = difflib.get_close_matches(str(key), list(keys), n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                self.fault(str(key), f"is no setting of this tracker{hint}")

    def looked_up(self, key: str, fallback: str | None) -> str:
        """A trimmed text: a literal, ``$NAME``, or the fallback variable; "" where missing.

        ``$NAME`` of a variable that is not set falls back too; what begins with ``$`` and is no
        reference is missing, as is everything that is no text.
        """
        value = self.provider.get(key)
        default = self.environ.get(fallback, "") if fallback is not None else ""
        if value is None:
            return default.strip()
        if not isinstance(value, str):
            return ""
        text = value.strip()
        reference = REFERENCE.fullmatch(text)
        if reference is not None:
            return self.environ.get(reference[1], default).strip()
        return "" if text.startswith("$") else text

    def secret(self, key: str, fallback: str, *, what: str, code: str) -> str:
        """A token that is there and fits into a header."""
        text = self.looked_up(key, fallback)
        if not text:
            value = self.provider.get(key)
            reference = REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
            name = reference[1] if reference is not None else fallback
            self.fault(key, f"there is no {what}: export {name}, or write `${name}` ({code})")
        elif not text.isascii() or not text.isprintable():
            # It would be refused as a header much later, with the token in the traceback.
            self.fault(key, f"the {what} holds characters no token has ({code})")
        return text

    def https_url(self, key: str, default: str, *, code: str, fallback: str | None = None) -> str:
        """An address without its final ``/``: https, or http on this machine."""
        if self.provider.get(key) is None and (fallback is None or fallback not in self.environ):
            return default
        text = self.looked_up(key, fallback).rstrip("/")
        try:
            parts = urlsplit(text)
            local = parts.scheme == "http" and parts.hostname in _LOOPBACK
            usable = bool(parts.hostname) and (parts.scheme == "https" or local)
            # Reading the port raises where it is none.
            usable = usable and parts.port != 0 and parts.username is None
            usable = usable and not (parts.query or parts.fragment) and text.isprintable()
            usable = usable and not any(c.isspace() or c == "\\" for c in text)
        except ValueError:
            usable = False
        if not usable:
            example = f", such as {default}" if default else ""
            self.fault(key, f"must be an https address{example} ({code})", self.provider.get(key))
        return text

    def flag(self, key: str, default: bool = False) -> bool:
        """``true`` or ``false``."""
        value = self.provider.get(key, default)
        if isinstance(value, bool):
            return value
        self.fault(key, "must be true or false", value)
        return default

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of these words; the first is the default."""
        value = self.provider.get(key, choices[0])
        if value in choices:
            return str(value)
        self.fault(key, f"must be one of {', '.join(choices)}", value)
        return choices[0]

    def names(self, key: str) -> dict[str, str]:
        """A map of names to names; a list maps each name to itself."""
        value = self.provider.get(key)
        if value is None:
            return {}
        pairs: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping):
            pairs = list(value.items())
        elif isinstance(value, Sequence) and not isinstance(value, str):
            pairs = [(entry, entry) for entry in value]
        names = [
            (a.strip(), b.strip()) for a, b in pairs if isinstance(a, str) and isinstance(b, str)
        ]
        if not pairs or len(names) < len(pairs) or not all(a and b for a, b in names):
            self.fault(key, "must be a list of names, or a map of names to names", value)
            return {}
        if len({normalize_state(name) for name, _ in names}) < len(names):
            self.fault(key, "names something twice (upper and lower case are the same)", value)
        return dict(names)

    def priorities(self, key: str) -> dict[str, int]:
        """A map of names, in the form in which they compare, to priorities."""
        value = self.provider.get(key)
        if value is None:
            return {}
        usable = isinstance(value, Mapping) and all(
            isinstance(name, str) and isinstance(rank, int) and not isinstance(rank, bool)
            for name, rank in value.items()
        )
        if not usable:
            self.fault(key, "must be a map of names to whole numbers, 1 the most urgent", value)
            return {}
        return {normalize_state(name): rank for name, rank in value.items()}

    def states(
        self, key: str, states: Sequence[str], allowed: Sequence[str] | None, *, code: str
    ) -> None:
        """Check ``tracker.<key>``: each of these states is allowed (None: any name).

        Args:
            key: ``active_states`` or ``terminal_states``.
            states: As written.
            allowed: Names; they compare without case.
            code: The reference's name of the fault.
        """
        keys = [normalize_state(name) for name in allowed or ()]
        for state in states:
            if allowed is None or normalize_state(state) in keys:
                continue
            near = difflib.get_close_matches(normalize_state(state), keys, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            listed = ", ".join(f"`{name}`" for name in allowed)
            problem = f"may hold {listed}{hint} ({code})"
            self.faults.append(SettingFault(f"tracker.{key}", problem, shown(state)))


def secret_names(provider: Mapping[str, Any], key: str, *always: str) -> tuple[str, ...]:
    """Variables that agents must not inherit: the known ones, and the one that ``key`` names."""
    value = provider.get(key)
    reference = REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
    return tuple(dict.fromkeys((*always, *((reference[1],) if reference is not None else ()))))


def shown(value: object) -> str | None:
    """A value for a message, short; None where there is none."""
    return None if value is None else repr(value)[:80]
