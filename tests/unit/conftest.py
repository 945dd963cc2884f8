"""The same drawn examples in every run: a test that fails here fails for its change alone."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
