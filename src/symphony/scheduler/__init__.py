"""The pure core: ``step(state, event, now) -> commands``. No I/O, no clock, no chance, no logging.

``events`` are what may happen, ``commands`` what the shell is to do about it, ``state`` holds one
map of ``claims``. ``step`` hands each event to the module that owns its rule:

===============  ==================================================================================
``polling``      the cycle: reconcile and candidates are read side by side, then dispatch
``eligibility``  the gates that dispatch and ``explain`` both read, and the dispatch order
``placement``    slots and hosts
``dispatch``     candidate or due retry -> slot taken -> read once more -> started run
``reconcile``    what the tracker shows against what is held; stalls
``retry``        what follows the end of a run
``books``        what work has cost, and the limits on it; ``budget`` acts where one is reached
``publish``      ``build_snapshot`` and ``explain``; ``snapshot`` holds the rows
``invariants``   ``validate``, for tests and simulations
===============  ==================================================================================

How a claim moves (no entry: it can't):

===============  ==================================================================================
(none)           Dispatching (chosen), Cleaning (terminal at start), what the ledger held
``Dispatching``  Running (confirmed), (none)
``Running``      RetryQueued, Blocked, Cleaning (terminal), (none: not ours any more, shutdown)
``RetryQueued``  Rechecking (due, or a gate opened), Cleaning, (none)
``Rechecking``   Running, RetryQueued (no slot, read failed), Blocked (spent), Cleaning, (none)
``Blocked``      RetryQueued (an order, a higher limit), Cleaning, (none)
``Cleaning``     (none)
===============  ==================================================================================
"""
