"""hostd as its users install it: built from this checkout, installed in a guest's root file system.

Decides when it has to be built anew (when a file that goes in has changed) and
how it gets in.  The installation runs at full speed, in a chroot without
network and with process numbers of its own, so that nothing it might start
lives on.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.lab.environment import ROOT, VENV
from tests.machines.debian import CACHE, run
from tests.machines.steps import step

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")
GOES_IN = ("hostd", "agents", "plugins", "packaging", "conf.d", "pyproject.toml", "LICENSE", *DOCUMENTS)
INSIDE = "/var/cache/hostd.deb"
"""Where a guest has it."""


PACKAGE_VARIABLE = "HOSTD_MACHINES_PACKAGE"
"""A package to be tested instead of one built from this checkout."""


def package() -> Path:
    """The Debian package; built if it is not there."""
    if given := os.environ.get(PACKAGE_VARIABLE):
        return Path(given)
    made = CACHE / f"package-{_digest()}"
    if not made.is_dir():
        for old in CACHE.glob("package-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix="making-", dir=CACHE) as place, step("hostd's package"):
            half = Path(place) / "package"
            run(str(VENV / "bin/python"), str(ROOT / "packaging/build-deb"), str(half))
            half.rename(made)
    return next(made.glob("*.deb"))


def identity(package: Path) -> str:
    """Another one for another package, whatever their names."""
    return hashlib.sha256(package.read_bytes()).hexdigest()


def install(package: Path, tree: Path) -> None:
    """Into the root file system below ``tree``; it is kept there, so that a test can install it anew."""
    shutil.copy(package, tree / INSIDE.lstrip("/"))
    _inside(tree, f"dpkg --install {INSIDE}")


def _inside(tree: Path, script: str) -> None:
    run("unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "chroot", str(tree), "sh", "-ec", script)


def _digest() -> str:
    digest = hashlib.sha256()
    for name in GOES_IN:
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode & 0o111}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
