"""Faulty: a password that is not marked as a secret."""

from hostd.api import Field

BREAKS = ("secrets-marked",)
FIELDS = [Field("password", str, default="", help="of the service")]
