"""hostd itself, the first process: what it holds, and what it lives by.

Decides that one host runs per runtime directory (the lock), where its
directories and cgroups are, and what a heart and a brain are made of,
at the start and for each reload.  Refuses to know what becomes of them:
``supervisor`` keeps them alive, ``hands`` does what the brain asks for.
"""

import gc
import os
import socket

from hostd import cgroups, lock
from hostd.api import ConfigError
from hostd.config import Configuration, Directories
from hostd.registry import Registry
from hostd.reloading import Read, Setup
from hostd.supervisor import Supervisor


def run(configuration: Configuration, registry: Registry, directories: Directories) -> int:
    """Be hostd until told to end; the exit code.  Raises ConfigError if this machine does not let us."""
    # Imported here, before any fork: what follows is tested with small lives and needs neither.
    from hostd import config, daemon, description, heart, keys

    salt, node = description.fresh_salt(), configuration.node

    def setup(configuration: Configuration, registry: Registry) -> Setup:
        secrets = keys.read(configuration.key)
        settings = heart.HeartSettings.of(configuration, secrets)
        described = description.describe(configuration, registry, secrets, salt)

        def beat(host_end: socket.socket, brain_end: socket.socket) -> int:
            return heart.run(settings, registry.open_link, host_end, brain_end)

        def decide(host_end: socket.socket, heart_end: socket.socket) -> int:
            return daemon.run(configuration, directories, registry, host_end, heart_end, described)

        return Setup(configuration, registry, beat, decide, described)

    def read_again() -> Setup:
        fresh = Registry.load(directories)
        return setup(
            config.load(directories.config, node, fresh.parameters, fresh.link_types(), fresh.notify_types()), fresh
        )

    return serve(setup(configuration, registry), directories, read_again)


def serve(setup: Setup, directories: Directories, read_again: Read) -> int:
    """The same with any two lives: the tests bring small ones."""
    runtime, state = directories.runtime, directories.state
    try:
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock.acquire(runtime / "lock")
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; hostd needs its runtime and state directories, as root"
        ) from error
    groups = cgroups.choose(setup.configuration.node, runtime)
    supervisor = Supervisor(setup, groups, runtime, state, read_again)
    gc.collect()
    gc.freeze()  # what is loaded by now is shared with every child for good, and never walked again
    try:
        return supervisor.loop()
    finally:
        os.close(held)
