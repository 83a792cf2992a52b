"""``python -m polyprefix``."""

from polyprefix.cli import main

if __name__ == "__main__":
    main()
