"""The live status view in the daemon's own terminal; it reads snapshots and nothing else."""
