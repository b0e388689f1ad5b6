"""Faulty: a default that is not of the parameter's type, and that nobody explains."""

from hostd.api import Field

BREAKS = ("defaults", "help")
FIELDS = [Field("seconds", int, default="60")]
