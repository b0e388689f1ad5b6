"""Faulty: the password stands in the arguments of a command that a shell starts."""

from hostd.api import Field, Resource

BREAKS = ("secrets",)
FIELDS = [Field("password", str, default="", secret=True, help="of the service")]


def prepare(resource: Resource) -> None:
    env = {"PASSWORD": resource.params["password"]}
    resource.run(["sh", "-c", 'sh -c "sleep 0.3; :" x "$PASSWORD"; :'], env=env)
