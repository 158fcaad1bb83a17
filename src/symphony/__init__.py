"""Symphony: a daemon that turns tracker issues into finished work by driving Codex."""
