"""``hostd run``: the daemon in the foreground, as systemd starts it."""

import argparse
import logging
import sys

from hostd.commands import options, sentences
from hostd.commands.exits import ExitCode


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "run",
        "the daemon in the foreground (what systemd starts)",
        description="Be this node of the cluster until told to end. SIGTERM or SIGINT: move everything away "
        "and leave; once more: end at once, the services stay.",
        epilog="example: hostd run --config ./conf.d --runtime-dir /tmp/hostd --node clustnode1",
    )
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    if not __debug__:
        print("hostd: refuses python -O: its assertions are part of its safety; run it without", file=sys.stderr)
        return ExitCode.UNSAFE
    # Imported here: every other command starts faster without the daemon.
    from hostd import config, host, notifying
    from hostd.api import ConfigError, Note
    from hostd.registry import Registry
    from hostd.systemd import log_to_stderr

    directories, node = options.directories(namespace).absolute(), options.node(namespace)
    log_to_stderr("info")
    log = logging.getLogger("hostd")
    registry = Registry.load(directories)
    for warning in registry.warnings:
        log.warning("%s", warning)
    for broken in registry.broken:
        log.error("%s %s (%s) is broken: %s", broken.kind[:-1], broken.name, broken.path, broken.reason)
    try:
        configuration = config.load(
            directories.config, node, registry.parameters, registry.link_types(), registry.notify_types()
        )
        log_to_stderr(configuration.log_level)
        for warning in configuration.warnings:
            log.warning("%s", warning)
        for aside in configuration.set_aside:
            log.error("service %s is set aside, the others run: %s; %s", aside.service.name, aside.reason, aside.cure)
        for link in configuration.links:  # it is opened again and again, and may come to work: no reason not to start
            for sentence in registry.check_link(link):
                log.log(logging.WARNING if isinstance(sentence, Note) else logging.ERROR, "link %s", sentence)
        notifying.speak_by(sentences.fact)
        return host.run(configuration, registry, directories)
    except ConfigError as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        return ExitCode.WRONG_USE
