"""How hard hypothesis tries on the pure core.

By default the whole folder takes a few seconds. `MCP_BROKER_EXAMPLES=5000 pytest tests/core` searches for
longer, with that many examples for each property; `MCP_BROKER_STEPS` is the length of the histories. Where
`CI` is set, every run tries the same examples.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "core",
    max_examples=int(os.environ.get("MCP_BROKER_EXAMPLES", "20")),
    stateful_step_count=int(os.environ.get("MCP_BROKER_STEPS", "30")),
    deadline=None,  # nothing here depends on speed
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("core")
