"""What is made for each packet, and read many times: plain classes, whose attributes compiled code reads in place.

Values that are made seldom, or come from outside, are msgspec structs or dataclasses: a lookup for each attribute.
"""

from __future__ import annotations


class Value:
    """Compared, hashed and shown by its parts.  Whatever it is given stays: its attributes are final."""

    def parts(self) -> tuple[object, ...]:
        """What it consists of, in the order in which it is made of them."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Value) and other.parts() == self.parts()

    def __hash__(self) -> int:
        return hash(self.parts())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([repr(part) for part in self.parts()])})"
