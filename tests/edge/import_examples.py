"""What ``hostd import`` says of each example in ``ha.d/``, as text to compare.

Decides what is told: fates, order of starts and files, and nothing of this
machine.  After a change that is meant, write the expected texts anew and read
the difference:  python -m tests.edge.import_examples --rewrite
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from hostd.commands.import_report import Report
from hostd.commands.paper import Paper
from hostd.importing.conversion import Result, Wish, convert

HA_D = Path(__file__).parent / "ha.d"
AGENTS = frozenset({"mysql", "ldap", "cyrus", "httpd"})
EXAMPLES = sorted(path.parent.name for path in HA_D.glob("*/haresources") if not path.parent.name.endswith("-peer"))
EXPECTED = "expected.txt"


def converted(name: str, *, keep_scripts: bool = False) -> Result:
    """The example, with its peer if it has one beside it (``NAME-peer``)."""
    with tempfile.TemporaryDirectory() as scratch:
        copies = [Path(scratch, which, "etc", "ha.d") for which in ("here", "there")]
        for original, copy in zip((HA_D / name, HA_D / f"{name}-peer"), copies, strict=True):
            if original.is_dir():
                shutil.copytree(original, copy, ignore=shutil.ignore_patterns(EXPECTED))
                for keys in copy.glob("authkeys"):
                    keys.chmod(0o600)  # which no repository keeps
        peer = copies[1] if copies[1].is_dir() else None
        node = "node1" if peer else ""
        return convert(Wish(copies[0], peer, node=node, agents=AGENTS, keep_scripts=keep_scripts))


def told(name: str) -> str:
    """The report, less what depends on this machine."""
    paper = Paper(io.StringIO())
    report = Report(Path(name), converted(name), (), is_local=False, paper=paper)
    report.fates()
    report.orders()
    report.files()
    report.verdict(None, with_files=False)
    return paper.text()


if __name__ == "__main__":
    assert sys.argv[1:] == ["--rewrite"], __doc__
    for example in EXAMPLES:
        (HA_D / example / EXPECTED).write_text(told(example))
