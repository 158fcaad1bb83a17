"""Takes back the claim of an app-server that was killed while it filled its home's index.

Codex keeps an index of its threads in a database of CODEX_HOME. The first one to start fills it and
marks that as running; others wait 30 s for it and exit. The mark of one that was killed is honoured
for a quarter of an hour, in which no agent can start. Invariant: this is asked only while no
app-server of ours lives in the home, and the home is ours alone, so a running fill has no owner.

``session`` asks before the first start of a daemon's lifetime.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_FREE = "UPDATE backfill_state SET updated_at = 0 WHERE status = 'running' AND updated_at > 0"


def free_backfill(codex_home: Path) -> bool:
    """Let the next app-server take over a fill that was broken off; say whether there was one.

    The mark is made old, not taken away: Codex takes over old ones by itself. Databases of another
    shape, of which there may be some in every version, are left alone. Blocks.
    """
    freed = False
    for path in sorted(codex_home.glob("state_*.sqlite")):
        try:
            # mode=rw: one that has just gone is not made anew.
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=1.0)) as db:
                freed |= db.execute(_FREE).rowcount > 0
                db.commit()
        except sqlite3.Error:
            continue
    return freed
