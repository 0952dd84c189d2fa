"""How much a test tries: a sample in the default suite, all in `nox -s deep` and `kills`."""

import os

from hypothesis import settings

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

NARROW = settings() if DEEP else settings(max_examples=25)
"""Settings of properties over few kinds of input, for which few examples are enough."""
