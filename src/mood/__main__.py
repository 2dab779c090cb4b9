"""`python -m mood` is the `mood` command."""

from mood.cli import main

if __name__ == "__main__":
    main()
