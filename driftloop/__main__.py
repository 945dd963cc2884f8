"""`python -m driftloop` is `driftloop`."""

from driftloop.harness.cli import main

main()
