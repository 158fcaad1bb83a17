"""Workspaces: one directory per issue below ``workspace.root`` (SPEC 9).

``keys`` names them and guards their paths, ``folders`` makes and removes them on disk, ``hooks``
runs the operator's scripts. ``git`` says how git is started, ``mirror`` and ``population`` fill
workspaces from a repository and bring branches back. ``inspection`` looks for work that would be
lost, in a ``sandbox``, and ``kept`` moves it aside. ``manager`` puts them together.
"""
