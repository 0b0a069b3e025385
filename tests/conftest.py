"""Settings of all tests: how long a test takes depends on the machine, so that no example has a deadline."""

from hypothesis import settings

settings.register_profile("nimbusd", deadline=None)
settings.load_profile("nimbusd")
