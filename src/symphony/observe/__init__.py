"""What people and machines may see of the daemon: published snapshots, and logs.

``bus`` holds the newest snapshot and wakes its readers; ``logs`` sets up logging, ``rendering``
makes its lines and ``redaction`` keeps secrets out of them; ``humanize`` describes Codex's events,
and ``rate_limits`` its limits, in a few words.
"""
