from __future__ import annotations

import asyncio

# Else looptime asks for a loop before a test has one, and Python 3.11 makes one that stays open.
asyncio.set_event_loop(None)
