"""How much a test tries: little in the default suite, all in `nox -s deep` and `kills`."""

import os

from hypothesis import settings

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

NARROW = settings() if DEEP else settings(max_examples=25)
"""For properties over few kinds of input, of which the default suite needs few examples."""
