"""``agent.profiles``: another prompt, model or number of turns for some issues.

A profile is chosen by the issue's state and labels; the first that fits counts, so that order is
all there is to know. Profiles may narrow what an agent may do (``read_only``) and never widen it:
whoever can move an issue or label it chooses its profile. For the same reason an unknown key in a
profile is a fault and not a warning: a misspelt condition would be none. Pure: files are read by
the caller; ``settings`` holds the result, ``checking`` tells the faults.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symphony.model.issue import Issue, normalize_state

Keys = tuple[str, ...]
"""Where in the front matter something stands, from the root."""

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
"""Reasoning efforts that current Codex knows; others are passed on with a warning."""

PROFILE_KEYS = (
    "name",
    "states",
    "labels",
    "prompt",
    "prompt_file",
    "continuation_prompt",
    "model",
    "reasoning_effort",
    "max_turns",
    "read_only",
)

_WIDENING = ("approval_policy", "command", "sandbox", "thread_sandbox", "turn_sandbox_policy")
_ROOT: Keys = ("agent", "profiles")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")
_WHOLE = re.compile(r"\+?[0-9]{1,9}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The text of a template, and where it stands.

    Attributes:
        source: The key, or the path of the file that holds it.
        line: Line of its first one in that file.
    """

    text: str
    source: str
    line: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is different for some issues; None means: as for all.

    Attributes:
        states: Compared forms; the issue must be in one of them. Empty: in any.
        labels: Compared forms; the issue must have all of them.
        read_only: The agent may read and nothing else, whatever the policies allow.
    """

    name: str
    states: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    prompt: Prompt | None = None
    continuation_prompt: Prompt | None = None
    model: str | None = None
    reasoning_effort: str | None = None
    max_turns: int | None = None
    read_only: bool = False

    def fits(self, issue: Issue) -> bool:
        """Tell whether the issue's state and labels are those of this profile."""
        in_state = not self.states or issue.state_key in self.states
        return in_state and set(self.labels).issubset(issue.labels)

    def covers(self, other: Profile) -> bool:
        """Tell whether every issue that fits the other one fits this one too."""
        states = not self.states or (bool(other.states) and set(other.states) <= set(self.states))
        return states and set(self.labels) <= set(other.labels)

    def conditions(self) -> str:
        """Return in words which issues it is for."""
        parts = []
        if self.states:
            parts.append(f"state {' or '.join(self.states)}")
        if self.labels:
            parts.append(f"label {' and '.join(self.labels)}")
        return ", ".join(parts) or "every issue"


def profile_of(profiles: Sequence[Profile], issue: Issue) -> Profile | None:
    """Return the first profile that fits the issue, or None."""
    return next((profile for profile in profiles if profile.fits(issue)), None)


@dataclass(frozen=True, slots=True)
class ProfileFault:
    """One fault: where it stands, what is wrong, and the value."""

    keys: Keys
    problem: str
    value: object = None


class ProfileReader:
    """Reads the value of ``agent.profiles``; collects all that is wrong with it.

    Args:
        read_text: Returns the text and the path of a prompt file as it is written; raises
            ValueError with a sentence where that can't be done.
        line_of: Returns the line of a key in the workflow file, or None.

    Attributes:
        faults: In the order found.
        warnings: What is passed on or never used, a sentence each.
    """

    def __init__(
        self,
        read_text: Callable[[str], tuple[str, str]],
        line_of: Callable[[Keys], int | None],
    ) -> None:
        self._read_text = read_text
        self._line_of = line_of
        self.faults: list[ProfileFault] = []
        self.warnings: list[str] = []

    def read(self, raw: object) -> tuple[Profile, ...]:
        """Return the profiles in their order; those with faults are left out."""
        profiles: list[Profile] = []
        for keys, name, values in self._entries(raw):
            before = len(self.faults)
            profile = self._profile(keys, name, values)
            if any(profile.name == earlier.name for earlier in profiles):
                self._fault((*keys, "name"), "must differ from the other profiles'", profile.name)
            if len(self.faults) == before:
                self._warn(profile, profiles)
                profiles.append(profile)
        return tuple(profiles)

    def _entries(self, raw: object) -> Iterator[tuple[Keys, str | None, Mapping[str, Any]]]:
        named: Sequence[tuple[str, str | None, object]]
        if isinstance(raw, Mapping):
            named = [(str(name), str(name), values) for name, values in raw.items()]
        elif isinstance(raw, (list, tuple)):
            named = [(str(index), None, values) for index, values in enumerate(raw)]
        else:
            self._fault(_ROOT, "must be a map of profiles by name, or a list of them", raw)
            return
        for key, name, values in named:
            if isinstance(values, Mapping):
                yield (*_ROOT, key), name, values
            else:
                self._fault((*_ROOT, key), "must be a map of a profile's settings", values)

    def _profile(self, keys: Keys, name: str | None, values: Mapping[str, Any]) -> Profile:
        self._check_keys(keys, name, values)
        states = self._texts(keys, "states", values)
        labels = self._texts(keys, "labels", values)
        return Profile(
            name=self._name(keys, name, values),
            states=tuple(dict.fromkeys(normalize_state(state) for state in states)),
            labels=tuple(dict.fromkeys(label.strip().lower() for label in labels)),
            prompt=self._prompt(keys, values),
            continuation_prompt=self._inline(keys, "continuation_prompt", values),
            model=self._word(keys, "model", values),
            reasoning_effort=self._word(keys, "reasoning_effort", values),
            max_turns=self._positive(keys, "max_turns", values),
            read_only=self._boolean(keys, "read_only", values),
        )

    def _check_keys(self, keys: Keys, name: str | None, values: Mapping[str, Any]) -> None:
        known = PROFILE_KEYS if name is None else PROFILE_KEYS[1:]
        for key in values:
            if key in _WIDENING:
                problem = (
                    "can't be set in a profile, since whoever may move or label an issue chooses "
                    "its profile; it is set for all in codex, and read_only: true narrows it"
                )
                self._fault((*keys, key), problem)
            elif key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                self._fault((*keys, key), f"is no setting of a profile; {hint}")

    def _name(self, keys: Keys, name: str | None, values: Mapping[str, Any]) -> str:
        written = values.get("name") if name is None else name
        if isinstance(written, str) and _NAME.fullmatch(written):
            return written
        where = (*keys, "name") if name is None else keys
        needed = "is required in a list of profiles: " if written is None else "must be "
        self._fault(where, f"{needed}a name of letters, digits, blanks, '_', '.' or '-'", written)
        return ""

    def _texts(self, keys: Keys, key: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        value = values.get(key, ())
        if isinstance(value, (list, tuple)):
            filled = all(isinstance(item, str) and item.strip() for item in value)
            if filled and (value or key not in values):
                return tuple(value)
        problem = f"must be a list of one {key.removesuffix('s')} or more, none of them blank"
        self._fault((*keys, key), problem, value)
        return ()

    def _prompt(self, keys: Keys, values: Mapping[str, Any]) -> Prompt | None:
        path = self._word(keys, "prompt_file", values)
        if path is None:
            return self._inline(keys, "prompt", values)
        where = (*keys, "prompt_file")
        if "prompt" in values:
            self._fault(where, "can't stand beside prompt: one of the two is the profile's prompt")
            return None
        try:
            text, found = self._read_text(path)
        except ValueError as error:
            self._fault(where, str(error), path)
            return None
        if not text.strip():
            self._fault(where, "names a blank file; leave the key out for the prompt of all", path)
            return None
        return Prompt(text=text.strip(), source=found, line=_first_line(text))

    def _inline(self, keys: Keys, key: str, values: Mapping[str, Any]) -> Prompt | None:
        text = self._word(keys, key, values)
        if text is None:
            return None
        line = self._line_of((*keys, key)) or 1
        return Prompt(text=text, source=".".join((*keys, key)), line=line + ("\n" in text))

    def _word(self, keys: Keys, key: str, values: Mapping[str, Any]) -> str | None:
        value = values.get(key)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        blank = isinstance(value, str)
        problem = "can't be blank" if blank else "must be a string (put it in quotes)"
        self._fault((*keys, key), problem, None if blank else value)
        return None

    def _positive(self, keys: Keys, key: str, values: Mapping[str, Any]) -> int | None:
        value = values.get(key)
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        self._fault((*keys, key), "must be an integer above 0", value)
        return None

    def _boolean(self, keys: Keys, key: str, values: Mapping[str, Any]) -> bool:
        value = values.get(key, False)
        if isinstance(value, str):
            value = _BOOLEANS.get(value, value)
        if isinstance(value, bool):
            return value
        self._fault((*keys, key), "must be true or false", value)
        return False

    def _warn(self, profile: Profile, earlier: Sequence[Profile]) -> None:
        where = f"agent.profiles: {profile.name!r}"
        covering = next((one for one in earlier if one.covers(profile)), None)
        if covering is not None:
            self.warnings.append(f"{where} is never used: {covering.name!r} before it fits as well")
        effort = profile.reasoning_effort
        if effort is not None and effort not in EFFORTS:
            self.warnings.append(
                f"{where}: reasoning_effort {effort!r} is passed on, but current Codex knows only "
                f"{', '.join(EFFORTS)}"
            )

    def _fault(self, keys: Keys, problem: str, value: object = None) -> None:
        self.faults.append(ProfileFault(keys, problem, value))


def _first_line(text: str) -> int:
    return 1 + text[: len(text) - len(text.lstrip())].count("\n")
