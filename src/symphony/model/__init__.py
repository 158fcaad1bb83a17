"""The frozen types that all parts share: issues, runs, usage, instants. No I/O, no clock."""
