"""The demo: a scripted model, a sample repository and a board, and the proof that all was done."""
