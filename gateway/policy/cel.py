"""Conditions in CEL, the Common Expression Language (https://github.com/google/cel-spec).

Variables are declared with their types, so that an expression is checked when its document is read: what is
misspelled or compares a number with text never gets as far as a packet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from cel_expr_python import cel

MAX_EXPRESSION_CHARACTERS = 4096

BOOL, DOUBLE, INT, STRING, TIMESTAMP = (
    cel.Type.BOOL,
    cel.Type.DOUBLE,
    cel.Type.INT,
    cel.Type.STRING,
    cel.Type.TIMESTAMP,
)
STRINGS = cel.Type.List(STRING)
STRING_TO_INT = cel.Type.Map(STRING, INT)
STRING_TO_STRING = cel.Type.Map(STRING, STRING)

_WORD = re.compile(r"\w+")
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '(.+?)' \(in container ''\)")

Facts = TypeVar("Facts", contravariant=True)


class ConditionError(ValueError):
    """An expression that is no condition; the message says why and where in it."""


class Variable(NamedTuple, Generic[Facts]):
    """What an expression may name: its type, and where its value comes from."""

    type: cel.Type
    read: Callable[[Facts], object]


class Expression:
    """A compiled condition.  The same text compiled twice by one `Language` may be the same object."""

    __slots__ = ("_program", "text", "variables")

    def __init__(self, text: str, program: cel.Expression, variables: frozenset[str]) -> None:
        self._program = program
        self.text = text
        self.variables = variables
        """Names of the variables that it may read."""

    def evaluate(self, bindings: cel.Activation) -> bool | str:
        """Whether the condition holds; text says why that cannot be told."""
        try:
            value = self._program.eval(bindings).value()
        except RuntimeError as error:  # too many iterations
            return str(error)
        return value if isinstance(value, bool) else str(value)


class Language(Generic[Facts]):
    """CEL with certain variables.  Their names are dotted; the part before the dot is no value by itself."""

    def __init__(self, variables: Mapping[str, Variable[Facts]]) -> None:
        self._variables = variables
        self._environment = cel.NewEnv(variables={name: each.type for name, each in variables.items()})
        self.nothing = self._environment.Activation({})
        """Bindings for expressions that read no variables."""

    @property
    def names(self) -> Iterable[str]:
        """What an expression may name."""
        return self._variables.keys()

    def compile(self, text: str) -> Expression:
        """Check and compile `text`.

        Raises:
            ConditionError: it does not parse, does not type-check, or is not true or false.

        """
        if len(text) > MAX_EXPRESSION_CHARACTERS:
            raise ConditionError(f"longer than {MAX_EXPRESSION_CHARACTERS} characters")
        try:
            program = self._environment.compile(text)
        except RuntimeError as error:
            raise ConditionError(self._explain(text, str(error))) from None
        kind = program.return_type()
        if kind != BOOL:
            raise ConditionError(f"expected a condition, which is true or false; this is of type {kind.name().lower()}")
        # A word that is the last part of a variable's name may be elsewhere in the text, too; then it is
        # read in vain.  No use of a variable is missed, however the dot is spaced.
        words = set(_WORD.findall(text))
        used = frozenset(name for name in self._variables if name.rpartition(".")[2] in words)
        return Expression(text, program, used)

    def bind(self, variables: Iterable[str], facts: Facts) -> cel.Activation:
        """The values of `variables` for evaluating any number of expressions that read no others."""
        known = self._variables
        return self._environment.Activation({name: known[name].read(facts) for name in variables})

    def _explain(self, text: str, error: str) -> str:
        found = _ERROR.search(error)
        if found is None:
            return error
        line, column, what = int(found[1]), int(found[2]), found[3].partition(" expecting {")[0]
        if undeclared := _UNDECLARED.fullmatch(what):
            close = difflib.get_close_matches(undeclared[1], self._variables, 1, cutoff=0.75)
            what = f"unknown name {undeclared[1]!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        where = f"character {column}" if "\n" not in text else f"line {line}, character {column}"
        return f"{what} ({where} of the expression)"
