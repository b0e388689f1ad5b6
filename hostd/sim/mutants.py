"""The core with one rule broken on purpose, to show that the judge bites.

Decides which rules can be broken and how: each mutant replaces one method or
value of the core for the length of a ``with``.  Nothing else may use it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Mutation = Callable[[], AbstractContextManager[None]]

MUTANTS: dict[str, Mutation] = {}


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """``owner.name`` is ``value`` for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def applied(name: str | None) -> AbstractContextManager[None]:
    """Break the named rule, or none."""
    if name is None:
        return nullcontext()
    if name not in MUTANTS:
        raise ValueError(f"no such mutant: {name} (one of {', '.join(sorted(MUTANTS))})")
    return MUTANTS[name]()
