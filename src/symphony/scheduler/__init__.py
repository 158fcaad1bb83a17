"""The pure core: ``step(state, event, now) -> commands``. No I/O, no clock, no chance, no logging.

``state`` holds one map of claims, ``events`` are what may happen, ``commands`` what the shell is
to do about it. ``eligibility`` gives the gates that dispatch and ``explain`` both read.
"""
