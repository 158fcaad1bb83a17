"""``python -m symphony``: the command line."""

from symphony.cli import main

if __name__ == "__main__":
    main()
