"""Hypothesis tries as hard here as on the core: its settings are loaded by importing them."""

import tests.core.conftest  # noqa: F401
