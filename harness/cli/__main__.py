"""`python -m harness.cli` is `driftloop`."""

from harness.cli import main

main()
