"""`python -m diveqcodec` is the command `diveq`, for where no script can be installed."""

from diveqcodec.cli import main

if __name__ == "__main__":
    main()
