"""Hypothesis without a deadline: an example may wait for a worker process, on a busy machine."""

from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
