"""The HTTP surface: a JSON API and a dashboard on the control socket and, if asked, on TCP.

Role: shows snapshots and takes a refresh request (SPEC 13.7). Nothing here is needed for the
daemon to do its work.
Invariant: requests read the last published snapshot and never wait for the scheduler; whoever may
ask is decided in ``guard`` before any handler runs.
Neighbours: ``backend`` is all that it asks of the daemon; ``listeners`` opens the sockets and is
cheap to import; everything that needs Starlette or uvicorn is imported when the server starts.
"""
