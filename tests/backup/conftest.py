"""How hard the simulations search: ``HYPOTHESIS_PROFILE=soak`` looks far longer, and elsewhere each time."""

from __future__ import annotations

import os

import hypothesis

QUIET = tuple(hypothesis.HealthCheck)

hypothesis.settings.register_profile(
    "quick", max_examples=60, stateful_step_count=20, derandomize=True, deadline=None, suppress_health_check=QUIET
)
hypothesis.settings.register_profile(
    "soak", max_examples=3000, stateful_step_count=40, print_blob=True, deadline=None, suppress_health_check=QUIET
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
