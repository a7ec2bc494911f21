"""The largest values that the contracts allow, for tests of sizes. They follow from the contracts' bounds."""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

_OF_PATTERNS: Final = {
    "^[A-Z]{2}$": "BR",
    "^[A-Z]{3}$": "BRL",
    r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$": "0.123456",
    "^[A-Za-z0-9][A-Za-z0-9_.:-]{0,31}$": "i" * 32,
    "^[A-Za-z0-9_.-]{1,40}$": "k" * 38,
    "^[0-9a-f]{64}$": "0" * 64,
}
"""The longest text that matches each pattern; of a key 38 characters, as its number follows."""


def largest(kind: type[T], character: str, *, longest: int = 500) -> T:
    """A value of this type in which everything is there and as large as it may be.

    Free text consists of the character, and is at most `longest` characters long.
    """
    return msgspec.convert(_largest(inspect.type_info(kind), character, longest), kind)


def _largest(kind: inspect.Type, character: str, longest: int) -> Any:
    match kind:
        case inspect.StrType(pattern=str(pattern)):
            return _OF_PATTERNS[pattern]
        case inspect.StrType(max_length=int(length)):
            return character * min(length, longest)
        case inspect.IntType(le=int(most)):
            return most
        case inspect.BoolType():
            return True
        case inspect.LiteralType(values=values):
            return max(map(str, values), key=len)
        case inspect.UUIDType():
            return "01a20320-c5a3-740d-97ce-5eea56e6f8d7"
        case inspect.DateType():
            return "2026-11-22"
        case inspect.DateTimeType():
            return "2026-11-22T12:00:00.123456Z"
        case inspect.UnionType(types=types):
            return next(_largest(one, character, longest) for one in types if one != inspect.NoneType())
        case inspect.VarTupleType(item_type=item, max_length=int(length)):
            return [_largest(item, character, longest)] * length
        case inspect.DictType(key_type=key, value_type=value, max_length=int(length)):
            return {
                f"{_largest(key, character, longest)}{n:02}": _largest(value, character, longest)
                for n in range(length)
            }
        case inspect.StructType(fields=fields, tag=tag, tag_field=tag_field):
            members = {field.encode_name: _largest(field.type, character, longest) for field in fields}
            return members | ({tag_field: tag} if tag_field else {})
        case _:
            raise TypeError(f"{kind} has no bound.")
