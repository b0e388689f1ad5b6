"""Values of any type that hostd puts on a wire, drawn from a script.

Decides which values a field may have: mostly such as mean something (known
names, small and neighbouring numbers), and now and then the extreme ones that
the encoding still carries.  From the annotations of the msgspec structures
themselves, so that a new field is fuzzed as soon as it is there.
"""

import enum
from functools import cache
from typing import Any, Final

from msgspec import inspect

from tests.fuzz.script import Script

NUMBERS: Final = (0, 1, 2, 3, 5, -1, 255, 1_000, 2**31, 2**32 - 1, 2**40 - 1, 2**40, 2**63 - 1, 2**64 - 1, -(2**63))
"""msgpack carries 64 bits."""
FLOATS: Final = (0.0, -1.0, 1.5, 1e9, 1e308, -1e308, 5e-324)
ITEMS_MAX: Final = 4
DEPTH_MAX: Final = 12


@cache
def described(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


class Drawn:
    """Draws values; ``words`` are the texts that mean something."""

    def __init__(self, script: Script, words: tuple[str, ...], numbers: tuple[int, ...] = NUMBERS) -> None:
        self._script, self._words, self._numbers = script, words, numbers

    def value(self, kind: Any) -> Any:
        """One value of a type annotation."""
        return self._of(described(kind), DEPTH_MAX)

    def _of(self, kind: inspect.Type, depth: int) -> Any:
        assert depth > 0, kind
        script = self._script
        match kind:
            case inspect.StructType() | inspect.NamedTupleType():
                return kind.cls(**{field.name: self._of_field(field, depth) for field in kind.fields})
            case inspect.UnionType():
                return self._of(script.choice(kind.types), depth - 1)
            case inspect.EnumType():
                members: list[enum.Enum] = list(kind.cls)
                return script.choice(members)
            case inspect.VarTupleType():
                return tuple(self._of(kind.item_type, depth - 1) for _ in range(script.byte() % ITEMS_MAX))
            case inspect.ListType():
                return [self._of(kind.item_type, depth - 1) for _ in range(script.byte() % ITEMS_MAX)]
            case inspect.TupleType():
                return tuple(self._of(item, depth - 1) for item in kind.item_types)
            case inspect.DictType():
                return {
                    self._of(kind.key_type, depth - 1): self._of(kind.value_type, depth - 1)
                    for _ in range(script.byte() % ITEMS_MAX)
                }
            case inspect.LiteralType():
                return script.choice(kind.values)
            case _:
                return self._of_plain(kind)

    def _of_field(self, field: inspect.Field, depth: int) -> Any:
        if not field.required and self._script.byte() % 3 == 0:
            return field.default if field.default is not inspect.NODEFAULT else field.default_factory()
        return self._of(field.type, depth - 1)

    def _of_plain(self, kind: inspect.Type) -> Any:
        script = self._script
        match kind:
            case inspect.NoneType():
                return None
            case inspect.BoolType():
                return bool(script.byte() & 1)
            case inspect.IntType():
                return self._number()
            case inspect.FloatType():
                return script.choice(FLOATS)
            case inspect.BytesType():
                return script.short()
            case inspect.StrType():
                return self._text()
            case inspect.AnyType():
                return script.choice((None, True, self._number(), self._text()))
        raise AssertionError(f"{kind}: teach tests/fuzz/typed.py to draw it")

    def _number(self) -> int:
        drawn = self._script.byte()
        return self._script.choice(self._numbers) if drawn % 4 == 0 else drawn % 16

    def _text(self) -> str:
        if self._script.byte() % 8:
            return self._script.choice(self._words)
        return self._script.short().decode(errors="replace")
