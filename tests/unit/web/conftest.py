"""Snapshots to present."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def snapshots() -> ModuleType:
    path = Path(__file__).parents[2] / "fakes" / "snapshots.py"
    spec = importlib.util.spec_from_file_location("fakes_snapshots", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
