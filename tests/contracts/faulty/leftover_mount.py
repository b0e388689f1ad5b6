"""Faulty: stop leaves what start has mounted."""

from hostd.api import Resource

BREAKS = ("leftover-mounts",)


def prepare(resource: Resource) -> None:
    folder = resource.run_dir / "mounted"
    if not folder.is_mount():
        folder.mkdir(exist_ok=True)
        resource.run(["mount", "-t", "tmpfs", "hostd-faulty", str(folder)])
