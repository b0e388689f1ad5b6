"""Puts a fault into the sound agent: one whole file, as an author would have written it.

Decides by names: what the file of the fault defines (a function, a constant)
stands in the place of what the sound agent has under that name, and what is
new comes behind the imports.  An import of the sound agent is only there for
those who read and check the fault, and is left out.
"""

import ast
from pathlib import Path

FAULTY = Path(__file__).parent / "faulty"
SOUND = Path(__file__).parent / "sound_agent.py"
SOUND_MODULE = "tests.contracts.sound_agent"
NAMES = sorted(path.stem for path in FAULTY.glob("*.py"))


def breaks(name: str) -> tuple[str, ...]:
    """The rules that are meant to catch it, as the fault says of itself; read, not run."""
    for statement in ast.parse((FAULTY / f"{name}.py").read_text()).body:
        if _defined(statement) == "BREAKS" and isinstance(statement, ast.Assign):
            found: tuple[str, ...] = ast.literal_eval(statement.value)
            return found
    raise AssertionError(f"{name} does not say what it breaks")


def write(name: str, folder: Path) -> Path:
    """The whole faulty agent, as a file in this folder."""
    path = folder / f"{name}.py"
    path.write_text(composed((FAULTY / path.name).read_text(), SOUND.read_text()))
    return path


def composed(fault: str, sound: str) -> str:
    """The text of the sound agent with this fault in it."""
    words, *statements = ast.parse(fault).body
    imports = [s for s in statements if _imports(s) and not _imports(s, SOUND_MODULE)]
    changes = [s for s in statements if not _imports(s)]
    own_imports, own = [], []
    for statement in ast.parse(sound).body[1:]:
        (own_imports if _imports(statement) else own).append(statement)
    known = {_defined(statement) for statement in own}
    instead = {_defined(s): _text(fault, s) for s in changes if _defined(s) in known}
    parts = [_text(fault, words)]
    parts += [_text(sound, s) for s in own_imports]
    parts += [_text(fault, s) for s in imports]
    parts += [_text(fault, s) for s in changes if _defined(s) not in known]
    parts += [instead.get(_defined(s)) or _text(sound, s) for s in own]
    return "\n\n".join(parts) + "\n"


def _imports(statement: ast.stmt, module: str = "") -> bool:
    """Is it an import, of this module if one is named?"""
    if isinstance(statement, ast.ImportFrom):
        return module in ("", statement.module)
    return isinstance(statement, ast.Import) and not module


def _defined(statement: ast.stmt) -> str:
    """The name that it gives something; "" if it gives none."""
    match statement:
        case ast.FunctionDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def _text(source: str, statement: ast.stmt) -> str:
    """Its lines, those of its decorators included."""
    decorators = statement.decorator_list if isinstance(statement, ast.FunctionDef) else []
    first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(source.splitlines()[first - 1 : statement.end_lineno])
