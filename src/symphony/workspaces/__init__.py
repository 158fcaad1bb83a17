"""Workspaces: one directory per issue below ``workspace.root`` (SPEC 9).

``keys`` names them and guards their paths, ``folders`` makes and removes them on disk, ``hooks``
runs the operator's scripts, ``manager`` puts the three together.
"""
