"""The shell around the scheduler: one mailbox in, one step at a time, commands out.

``loop`` owns the state and the only timer, ``executor`` carries commands out beside it and posts
their answers, ``publisher`` makes snapshots of what the loop has decided. Nothing here decides.
"""
