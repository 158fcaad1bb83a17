"""Renews the picture of the dashboard in the README: ``screenshot.py OUT.png``.

It runs the demo, waits until several agents are at work and lets headless Chromium take the
picture.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,860",
    # The page never falls silent: it is live.
    "--timeout=1500",
)
_LIMIT_S = 60.0


def main(target: Path) -> int:
    """Take the picture; return the exit status."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("chromium is needed (Debian: apt install chromium)", file=sys.stderr)
        return 1
    demo = subprocess.Popen(
        [sys.executable, "-m", "symphony", "demo"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = _address(demo)
        _until_busy(url)
        with tempfile.TemporaryDirectory() as profile:
            picture = target.absolute()
            command = [chromium, *_FLAGS, f"--user-data-dir={profile}", f"--screenshot={picture}"]
            subprocess.run([*command, url], check=True, stderr=subprocess.DEVNULL, timeout=_LIMIT_S)
    finally:
        demo.communicate(timeout=_LIMIT_S)
    print(f"{target}: {os.path.getsize(target)} bytes")
    return demo.returncode


def _address(demo: subprocess.Popen[str]) -> str:
    assert demo.stdout is not None
    for line in demo.stdout:
        found = re.match(r"Dashboard: (\S+)", line)
        if found:
            return found.group(1)
    raise SystemExit("the demo told no address")


def _until_busy(url: str) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}api/v1/state", timeout=5) as answer:
            state = json.load(answer)
        counts = state.get("counts", {})
        if counts.get("running", 0) >= 3 and counts.get("retrying", 0) >= 1:
            return
        time.sleep(0.05)
    raise SystemExit("the agents did not come to work")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
