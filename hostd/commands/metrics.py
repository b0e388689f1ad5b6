"""``hostd metrics``: the metrics of this node, for any exporter that can run a command."""

import argparse
import sys
from typing import Any, Final

from hostd.commands import ask, options
from hostd.commands.exits import ExitCode
from hostd.requests import plain

EPILOG: Final = """\
examples:
  hostd metrics
  hostd metrics | curl --data-binary @- http://pushgateway:9091/metrics/job/hostd

With [metrics] textfile = "/var/lib/prometheus/node-exporter/hostd.prom" in
conf.d, hostd writes the same every 15 s for node_exporter's textfile
collector. packaging/grafana/hostd.json is a dashboard of them."""


def register(subparsers: Any) -> None:
    parser = options.add(subparsers, "metrics", "the metrics of this node, in Prometheus' format", epilog=EPILOG)
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    # Imported here: plugins are loaded only for this.
    from hostd.api import ConfigError
    from hostd.registry import Registry

    try:
        status = ask.status(options.runtime(namespace))
        sys.stdout.write(Registry.load(options.directories(namespace)).metrics(plain(status)))
    except ask.Unanswered as error:
        return ask.complain(error)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_USE
    return ExitCode.DONE
