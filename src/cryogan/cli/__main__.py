"""`python -m cryogan.cli`."""

from cryogan.cli import main

if __name__ == "__main__":
    main()
