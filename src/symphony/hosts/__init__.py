"""Hosts: where commands run.

``base`` holds the contract, ``local`` is this machine, ``launch`` builds command lines and
environments, ``sweep`` ends what an earlier daemon left behind. ``supervisor`` runs apart from the
daemon and fences a host; ``link`` is the daemon's end of it.
"""
