"""What the daemon must not forget: a SQLite ledger of claims, runs, turns, events and totals.

``ledger`` is the face that the engine uses, ``writer`` the one thread that writes, ``operations``
the writes themselves, ``reading`` the queries, ``schema`` the tables with their migrations and how
a file is opened, ``codec`` how issues become text and back.
"""

from .ledger import Ledger
from .reading import EventRow, LedgerContents, OpenRun, RunRow

__all__ = ["EventRow", "Ledger", "LedgerContents", "OpenRun", "RunRow"]
