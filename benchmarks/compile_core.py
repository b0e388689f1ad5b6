"""Compiles the core and the simulator with mypyc, for many schedules.  Nothing of hostd needs it.

    python benchmarks/compile_core.py FOLDER        (mypy, setuptools, gcc, Python's headers: python3-dev)
    cd FOLDER && python -m hostd.sim run --seeds 1000000

FOLDER gets a copy of ``hostd`` with machine code beside the modules that decide
and simulate; the checkout stays as it is, and so does what is installed.  At
the end the copy has to give the digest that the checkout gives for the same
seeds, else the exit code is 1.  ``run`` and ``replay`` are what it is for: a
mutant cannot break a compiled method, and the exhaustive search copies cores in
ways that machine code does not support.

How much quicker it is: ``benchmarks/simulator.py FOLDER``.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from simulator import run

HERE = Path(__file__).resolve().parent.parent

INTERPRETED = frozenset({"__init__", "terms", "plan", "events", "effects", "snapshot", "wants", "wire", "stream"})
"""Of the core: plain data, which stays what msgspec makes of it, and what the simulator does not use."""

SIMULATED = (
    "queue", "links", "heart", "clocks", "machine", "hands", "actions", "addresses", "probes", "devices", "disk",
    "lan", "senses", "judge", "world",
)  # fmt: skip

FROZEN = '''"""mypyc drops the options of a class; these come by inheritance."""

import msgspec


class Frozen(msgspec.Struct, frozen=True):
    """What is never changed."""
'''

SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv[1:]
sys.argv = ["setup", "-q", "build_ext", "--inplace"]
setup(name="hostd-compiled", ext_modules=mypycify(files, opt_level="3"), packages=[], py_modules=[])
"""

SEEDS = 40


def prepared(text: str) -> str:
    """The same module, without the two things that mypyc cannot take."""
    text = re.sub(r"\bin \(\*(\w+), ([\w.]+)\)", r"in \1 + (\2,)", text)
    if "(msgspec.Struct, frozen=True)" in text:
        text = text.replace("(msgspec.Struct, frozen=True)", "(Frozen, frozen=True)")
        text = re.sub(r"^from hostd", "from hostd.core._frozen import Frozen\nfrom hostd", text, count=1, flags=re.M)
    return text


def copied(folder: Path) -> list[str]:
    """Fill the folder; the files to be compiled, as seen from it."""
    shutil.copytree(HERE / "hostd", folder / "hostd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "pyproject.toml", folder)  # what mypy is told
    (folder / "hostd/core/_frozen.py").write_text(FROZEN)
    core = [path for path in sorted((HERE / "hostd/core").glob("*.py")) if path.stem not in INTERPRETED]
    chosen = [path.relative_to(HERE) for path in core] + [Path("hostd/sim", f"{name}.py") for name in SIMULATED]
    for path in chosen:
        (folder / path).write_text(prepared((folder / path).read_text()))
    return [str(path) for path in chosen]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made anew; must not exist")
    folder = parser.parse_args().folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists; name a folder that does not")
    interpreted = run(HERE, 0, SEEDS, digest=True).digest
    files = copied(folder)
    with tempfile.NamedTemporaryFile() as log:
        print(f"compiling {len(files)} modules (about a minute)", flush=True)
        command = [sys.executable, "-c", SETUP, *files]
        if subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
            print(Path(log.name).read_text()[-3_000:])
            return 1
    shutil.rmtree(folder / "build")
    compiled = run(folder, 0, SEEDS, digest=True).digest
    same = compiled == interpreted
    print(f"{SEEDS} seeds: digest {compiled}, {'as interpreted' if same else f'but {interpreted} interpreted'}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
