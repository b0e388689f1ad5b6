"""Faulty: it builds a command for the shell out of a parameter."""

import os

from hostd.api import AgentError, Field, Resource, hookimpl

BREAKS = ("shell-safe",)
FIELDS = [Field("folder", str, default="/", help="must exist")]


@hookimpl
def validate(resource: Resource) -> None:
    if os.system(f"test -d {resource.params['folder']} 2>/dev/null") != 0:
        raise AgentError("folder is no folder", cure="set it to one that is there")
