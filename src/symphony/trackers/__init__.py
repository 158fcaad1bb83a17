"""Trackers: where issues come from (SPEC 11).

``base`` is the boundary, ``registry`` finds the adapter of a kind. Each adapter stands alone:
``local`` (and ``local_*``), ``linear`` (and ``linear_*``), ``memory``; ``http`` is the one layer
through which adapters reach a provider.
"""
