"""A plugin marketplace of one plugin, listed and read in a home of its own, without a login."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import readiness
from codex_app_server import Codex, RequestError


def write_marketplace(folder: Path) -> None:
    """Write a marketplace with one plugin into a repository."""
    (folder / ".git").mkdir()
    plugin = folder / "plugins/greeter/.codex-plugin"
    plugin.mkdir(parents=True)
    (plugin / "plugin.json").write_text(
        json.dumps({"name": "greeter", "description": "Greets.", "version": "1.0.0"})
    )
    entry = {
        "name": "greeter",
        "source": {"source": "local", "path": "./plugins/greeter"},
        "policy": {"installation": "AVAILABLE", "authentication": "ON_INSTALL"},
        "category": "Productivity",
    }
    market = folder / ".agents/plugins"
    market.mkdir(parents=True)
    (market / "marketplace.json").write_text(json.dumps({"name": "example", "plugins": [entry]}))


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_marketplace(Path(name))
        async with await Codex.start(codex_home="private") as codex:
            try:
                listed = await codex.connection.plugins.list(cwds=[name])
            except RequestError as error:
                print(f"skipped: this Codex has no plugins ({error.message[:80]})")
                return
            for market in listed.marketplaces:
                print(market.name, [plugin.name for plugin in market.plugins])
            read = await codex.connection.plugins.read(
                "greeter", marketplace_path=str(Path(name, ".agents/plugins/marketplace.json"))
            )
            print(read.plugin.summary.name, read.plugin.description)


readiness.run(main, login=False)
