"""`python -m edgerazor` is the `edgerazor` command."""

from edgerazor.cli import main

if __name__ == "__main__":
    main()
