"""Settings for every test: property tests are bounded by number, never by the clock."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("evergreen", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("evergreen")
