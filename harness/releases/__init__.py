"""Runs kept as releases, and what many runs say together."""
