"""``hostd fence NODE --check`` where no daemon runs: the same drill, in children of this command."""

import argparse
import logging
import os
import selectors
import sys

from hostd.cgroups import Marks
from hostd.commands import options
from hostd.commands.exits import ExitCode
from hostd.commands.fence import Report
from hostd.config import BadConfiguration, Configuration, load
from hostd.drill_book import device_status
from hostd.drills import Drills
from hostd.messages import Drilled
from hostd.registry import Registry


def check(namespace: argparse.Namespace, report: Report) -> ExitCode:
    """Read conf.d, try each device, and report; the exit code."""
    logging.getLogger("hostd").addHandler(logging.NullHandler())  # the report says it all
    directories, node = options.directories(namespace), namespace.target
    registry = Registry.load(directories)
    try:
        configuration = load(
            directories.config,
            options.node(namespace),
            registry.parameters,
            registry.link_types(),
            registry.notify_types(),
        )
    except BadConfiguration as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_USE
    if node not in configuration.plan.nodes:
        print(f"there is no node {node}; there are {' and '.join(configuration.plan.nodes)}", file=sys.stderr)
        return ExitCode.WRONG_USE
    with selectors.DefaultSelector() as selector:
        return _drill(configuration, registry, selector, node, report)


def _drill(
    configuration: Configuration, registry: Registry, selector: selectors.BaseSelector, node: str, report: Report
) -> ExitCode:
    words: list[Drilled] = []
    groups = Marks(f"hostd-fence-{os.getpid()}")
    drills = Drills(registry, groups, configuration.fencing_devices, selector, words.append)
    drills.begin(1, node)
    lives = node == configuration.node
    try:
        while not (words and words[-1].is_over):
            drills.tick()
            for key, _ in selector.select(0.1):
                key.data()
            if words:
                report.show(tuple(device_status(trial, node, lives=lives) for trial in words[-1].trials))
    finally:
        drills.abort()
    return report.end(words[-1].detail)
