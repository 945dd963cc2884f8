"""The acceptance suite of a release, installed as `driftloop.acceptance`."""
