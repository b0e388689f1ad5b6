"""Makes the machine able to run ``./demo`` and ``./test``: Debian packages and ``.venv``.

Decides what is missing, and installs just that.  Standard library only, since
it runs before anything else is there; it knows nothing of hostd but its
``pyproject.toml``.  Three promises: no service is started or stopped by what is
installed (a policy-rc.d that says no stands while apt runs, and what stood
there before comes back, whatever happens); none that came with it is started
by the next boot, and of those that were there nothing changes; and a second run costs next to
nothing (a stamp in ``.venv`` holds the digest of what it was made from).
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / "hostd-environment.json"

PACKAGE_OF = {
    # apache2-bin is the server without the unit that would start it at the next boot
    "apache2": "apache2-bin",
    "cyrmaster": "cyrus-imapd",  # with its unit, and with a mail transport agent where there is none
    "groff": "groff-base",
    "ip": "iproute2",
    # these bring the server and its installer without the unit that would start it at the next boot
    "mariadbd": "mariadb-server-core",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "my_print_defaults": "mariadb-client-core",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ocf-tester": "resource-agents",  # with the units of its daemons, which nothing starts here
    "openssl": "openssl",
    "promtool": "prometheus",  # with its unit: no package has the tool alone
    "saslpasswd2": "sasl2-bin",
    "sg_persist": "sg3-utils",
    "slapd": "slapd",  # with its unit: no package has the server alone
    "ssh": "openssh-client",
    "sshd": "openssh-server",  # with its unit
    "systemctl": "systemd",
    "xmllint": "libxml2-utils",
    "zsh": "zsh",
}
"""Which Debian package brings the command that the lab needs."""

MACHINES_PACKAGE_OF = {
    "/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so": "qemu-block-extra",
    "cpio": "cpio",
    "depmod": "kmod",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""Likewise the command, or the file, that emulated machines need beside; none of these brings a unit."""

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_ASIDE = Path("/usr/sbin/policy-rc.d.hostd-put-aside")
POLICY_MARK = "put here by hostd while apt runs"
POLICY_TEXT = f"#!/bin/sh\n# {POLICY_MARK}: no service is started, stopped or restarted\nexit 101\n"

PIP_TIMEOUT_S = 900  # a slow mirror; wheels only, nothing is compiled
APT_TIMEOUT_S = 900


class EnvironmentFailure(Exception):
    """The environment cannot be made: what failed, and what to do."""


class CommandFailed(Exception):
    """A command did not end well: the last lines of its output."""


def ensure(*, lab: bool, tests: bool, machines: bool = False) -> tuple[Path, list[str]]:
    """Install what is missing; the interpreter to go on with, and what was installed.

    ``lab``: what builds nodes in namespaces is needed (root, Debian packages).
    ``tests``: the test extra is needed too.  ``machines``: what emulates machines, too.
    Raises EnvironmentFailure with a sentence for the person who called.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - the one file that an older python3 may meet
        raise EnvironmentFailure(f"python3 is {sys.version.split()[0]}, hostd needs 3.11 or newer; Debian 12 has it")
    add_sbin_to_path()
    installed: list[str] = []
    packages = missing_packages(machines=machines) if lab else []
    venv_is_to_be_made = not (VENV / "bin" / "python").exists()
    if venv_is_to_be_made and importlib.util.find_spec("ensurepip") is None:
        packages.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    if (lab or packages) and os.geteuid() != 0:
        raise EnvironmentFailure(
            "this needs root: it makes network namespaces"
            + (f" and installs {' '.join(packages)}" if packages else "")
            + "; run it again as root, for instance with sudo"
        )
    if packages:
        install_packages(packages)
        installed += packages
        still_missing = missing_packages(machines=machines) if lab else []
        if still_missing:
            raise EnvironmentFailure(f"apt installed {' '.join(packages)}, yet {still_missing} is missing")
    if not stamp_says_done(tests):
        with lock(ROOT):
            if not stamp_says_done(tests):  # another run may have made it while we waited
                make_venv(tests)
                installed.append(".venv")
    return VENV / "bin" / "python", installed


def add_sbin_to_path() -> None:
    """``su`` without a login shell leaves root without the sbin folders."""
    path = os.environ.get("PATH", "").split(":")
    path += [folder for folder in ("/usr/sbin", "/sbin") if folder not in path]
    os.environ["PATH"] = ":".join(path)


# -- Debian packages ----------------------------------------------------------


def missing_packages(*, machines: bool = False) -> list[str]:
    wanted = PACKAGE_OF | (MACHINES_PACKAGE_OF if machines else {})
    return [package for thing, package in wanted.items() if not (shutil.which(thing) or Path(thing).exists())]


def install_packages(packages: Sequence[str]) -> None:
    if shutil.which("apt-get") is None:
        raise EnvironmentFailure(f"there is no apt-get here: install {' '.join(packages)} by other means")
    settings = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",  # needrestart would restart running services
        "LC_ALL": "C.UTF-8",
    }
    apt = ["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt, "install", "--no-install-recommends", "--no-remove", *packages]
    before = services_at_boot()
    with no_service_is_touched(), step(f"Debian packages: {' '.join(packages)}"), kept_from_boot(before):
        try:
            run_logged(install, settings, APT_TIMEOUT_S)
        except CommandFailed:
            # the package lists are absent or old: the usual reason, and a cheap cure
            try:
                run_logged([*apt, "update"], settings, APT_TIMEOUT_S)
                run_logged(install, settings, APT_TIMEOUT_S)
            except CommandFailed as failure:
                raise EnvironmentFailure(
                    f"apt-get could not install {' '.join(packages)}:\n{failure}\n"
                    "install them by hand (no service needs to run), then start this again"
                ) from None


def services_at_boot() -> set[str]:
    """The services that a boot would start, by the links of systemd and of System V's init; not systemd's own."""
    units = {link.stem for link in Path("/etc/systemd/system").glob("*.wants/*.service")}
    scripts = {link.name[3:] for link in Path("/etc").glob("rc[2-5].d/S[0-9][0-9]*")}
    return {name for name in units | scripts if not name.startswith(("systemd-", "getty@"))}


@contextlib.contextmanager
def kept_from_boot(before: set[str]) -> Iterator[None]:
    """Disable what a boot would start after the block and not before it, also if the block fails."""
    try:
        yield
    finally:
        for name in sorted(services_at_boot() - before):
            disable = [["systemctl", "disable", f"{name}.service"]] if shutil.which("systemctl") else []
            if Path("/etc/init.d", name).exists():
                disable.append(["update-rc.d", name, "disable"])
            for command in disable:
                with contextlib.suppress(CommandFailed):  # what counts is looked at below
                    run_logged(command, None, 60)
        if left := services_at_boot() - before:
            print(f"  ! the next boot would start {', '.join(sorted(left))}: systemctl disable it, if it should not")


@contextlib.contextmanager
def no_service_is_touched() -> Iterator[None]:
    """A policy-rc.d that refuses everything, for the time of the block.

    What stood there before comes back as it was: file, link or nothing, also
    on an error, Ctrl-C, SIGTERM and SIGHUP.  A run killed outright leaves
    ours behind; the next run knows it by its mark and finishes the job.
    """
    with lock(POLICY.parent), signals_as_exceptions():
        put_policy_back()
        if POLICY.exists() or POLICY.is_symlink():
            POLICY.rename(POLICY_ASIDE)
        try:
            POLICY.write_text(POLICY_TEXT)
            POLICY.chmod(0o755)
            yield
        finally:
            put_policy_back()


def put_policy_back() -> None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if POLICY_MARK in POLICY.read_text():
            POLICY.unlink()
    if (POLICY_ASIDE.exists() or POLICY_ASIDE.is_symlink()) and not POLICY.exists():
        POLICY_ASIDE.rename(POLICY)


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that ``finally`` runs."""

    def stop(number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- .venv ----------------------------------------------------------------------


def digest_of_wish() -> str:
    """Changes when the environment has to be made anew."""
    import tomllib  # not at the top: an old python3 must live to be told so

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wish = [project["build-system"], project["project"], str(ROOT)]
    return hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()


def stamp_says_done(tests: bool) -> bool:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return (
        (VENV / "bin" / "python").exists()
        and stamp.get("digest") == digest_of_wish()
        and (bool(stamp.get("tests")) or not tests)
    )


def make_venv(tests: bool) -> None:
    """Make or complete ``.venv``; one that is there is kept and added to."""
    if not (VENV / "bin" / "python").exists():
        with step("virtual environment .venv"):
            # --clear: a dangling interpreter link is all that can be there
            try:
                run_logged([sys.executable, "-m", "venv", "--clear", str(VENV)], None, 120)
            except CommandFailed as failure:
                raise EnvironmentFailure(f"python3 -m venv failed:\n{failure}") from None
    what = ".[test]" if tests else "."
    with step(f"pip install -e {what}"):
        pip = [str(VENV / "bin" / "python"), "-m", "pip"]
        try:
            run_logged([*pip, "install", "-q", "-e", what], None, PIP_TIMEOUT_S)
        except CommandFailed as failure:
            raise EnvironmentFailure(
                f"pip could not install hostd and its libraries:\n{failure}\n"
                "is the package index reachable (proxy, PIP_INDEX_URL)?"
            ) from None
    STAMP.write_text(json.dumps({"digest": digest_of_wish(), "tests": tests}))


# -- running and showing -----------------------------------------------------------


def run_logged(argv: Sequence[str], env: dict[str, str] | None, timeout_s: int) -> None:
    """Run quietly; CommandFailed with the last lines of what it printed if it fails.

    On an interruption the command is asked to end and waited for: a dpkg cut
    off in the middle would leave the machine half configured.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"    {argv[0]}: {error.strerror}") from None
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            raise CommandFailed(f"    {argv[0]} took longer than {timeout_s} s") from None
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        if code == 0:
            return
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
        raise CommandFailed("\n".join(f"    {line}" for line in lines[-15:]) or f"    exit code {code}")


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One at a time: two runs side by side wait for each other.  The lock is on
    the folder itself, so no lock file is left behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """One line that says what is being done, and at the end how long it took."""
    began = time.monotonic()
    live = sys.stdout.isatty()
    print(f"  … {what}", end="" if live else "\n", flush=True)
    mark = "failed:"
    try:
        yield
        mark = "✓"
    finally:
        print(f"{chr(13) if live else ''}  {mark} {what}  {time.monotonic() - began:.0f} s", flush=True)
