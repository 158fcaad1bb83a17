"""One attempt at an issue: workspace, hooks, prompt, session, turns, outcome.

``prompt`` renders what the agent is told, ``attempt`` carries a ``RunSpec`` through to exactly one
``Outcome``. A run knows its spec and the parts it was given, never the scheduler's state.
"""
