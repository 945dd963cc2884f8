"""`python -m driftloop` is `driftloop`."""

from driftloop.cli import main

main()
