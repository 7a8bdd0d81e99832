"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline for an example: on a busy machine it would measure the machine.
settings.register_profile("qregress", deadline=None, max_examples=50)
settings.load_profile("qregress")
