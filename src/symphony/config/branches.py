"""Where issues are worked in git: the repository's address and the names of branches.

Invariants: a name that comes out is one that git takes, and two issues never share one: every
placeholder stands for something unique to its issue, or the template has another one that does.
No address holds a password: agents can read what git is told.

Pure; ``checking`` asks for faults, ``workspaces.population`` for names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

DEFAULT_BRANCH = "symphony/{{ issue.identifier }}"

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_.]+)\s*\}\}")
_UNIQUE = ("issue.identifier", "issue.id", "issue.branch_name")
_KNOWN = (*_UNIQUE, "issue.title")
_VALUE_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_DOTS = re.compile(r"\.{2,}")  # git takes no ".." in a name
_TITLE_LIMIT = 40
_NAME_LIMIT = 200  # git makes a file of it, with ".lock" behind


def branch_fault(template: str) -> str | None:
    """Return what is wrong with a template, as the rest of a sentence about its key, or None."""
    names = _PLACEHOLDER.findall(template)
    unknown = next((name for name in names if name not in _KNOWN), None)
    if unknown is not None:
        return f"knows no {{{{ {unknown} }}}}; there are {', '.join(_KNOWN)}"
    if not any(name in _UNIQUE for name in names):
        return f"must tell issues apart: name one of {', '.join(_UNIQUE)} in {{{{ }}}}"
    if not is_branch_name(_PLACEHOLDER.sub("x", template)):
        return "must make a branch name that git takes (see git help check-ref-format)"
    return None


def base_fault(base: str) -> str | None:
    """Return what is wrong with the name of a base branch, or None."""
    return None if is_branch_name(base) else "must be the name of a branch"


def repository_fault(url: str) -> str | None:
    """Return what is wrong with a repository's address, or None; never quotes it."""
    if not url:
        return "can't be blank; name a URL, a path, or an environment variable that is set"
    if url.startswith("-") or "::" in url or re.search(r"[\x00-\x20]", url):
        return "must be a URL (https, ssh, git, file), a path, or host:path"
    if re.match(r"[a-z+]+://[^/@]*:[^/@]*@", url, re.IGNORECASE):
        return "must not hold a password, which agents could read; use ssh or a credential helper"
    return None


def is_local_repository(url: str) -> bool:
    """Say whether an address is a path of this machine, as git decides it."""
    return "://" not in url and (":" not in url.partition("/")[0])


def branch_name(template: str, values: Mapping[str, str]) -> str:
    """Return the branch of an issue.

    A value that had to be changed to fit into a name takes a part of its SHA-256 along, so that two
    issues never meet on one branch.

    Args:
        template: Without a ``branch_fault``.
        values: By placeholder; ``issue.branch_name`` may have slashes, the others lose them.
    """

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        value = values.get(name, "")
        if name == "issue.title":
            plain = _DOTS.sub("-", _VALUE_UNSAFE.sub("-", value))
            return plain[:_TITLE_LIMIT].strip("-.").lower() or "issue"
        if name == "issue.branch_name" and is_branch_name(value):
            return value
        return _unique_part(value)

    filled = _PLACEHOLDER.sub(fill, template)
    if is_branch_name(filled):
        return filled
    return _marked(filled)


def is_branch_name(name: str) -> bool:
    """Say whether git takes a name below ``refs/heads/`` (git check-ref-format, plain ASCII)."""
    if not re.fullmatch(r"[A-Za-z0-9._/+=,-]+", name) or len(name) > _NAME_LIMIT:
        return False
    parts = name.split("/")
    return (
        ".." not in name
        and not name.startswith("-")
        and not name.endswith(".")
        and name != "HEAD"
        and all(part and part[0] != "." and not part.endswith(".lock") for part in parts)
    )


def _unique_part(value: str) -> str:
    safe = _VALUE_UNSAFE.sub("-", value)
    if safe == value and is_branch_name(safe):
        return safe
    return _marked(value)


def _marked(value: str) -> str:
    """Return a name for any text: what git takes of it, and a part of its SHA-256."""
    taken = _DOTS.sub("-", _VALUE_UNSAFE.sub("-", value))[:100].strip("-.")
    return f"{taken or 'issue'}-{_digest(value)}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
