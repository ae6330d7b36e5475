"""Jinja for prompts: sandboxed, strict about names, and without anything that differs between two renderings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outcross.errors import ConfigError, DataError, did_you_mean

Values = Mapping[str, Any]


class _Missing(StrictUndefined):
    """A name inside a row that is not there: the message knows the names that are."""

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Mapping):
            name = str(self._undefined_name)
            return f"there is no {name!r} in it; {did_you_mean(name, map(str, self._undefined_obj))}"
        return str(super()._undefined_message)


class _Sandbox(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """`persona.items` is the column of that name, not the method of a dictionary."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _printable(value: Any) -> Any:
    if value is None:
        raise ValueError("a value in it is empty (null); say what to write instead, {{ name or 'none' }}, or leave such rows out")
    if callable(value) and not isinstance(value, Undefined):
        raise ValueError("it prints a function; call it, {{ name.upper() }}")
    return value


def _environment() -> _Sandbox:
    made = _Sandbox(undefined=_Missing, finalize=_printable)
    del made.filters["random"], made.globals["lipsum"]  # two renderings would differ
    return made


_ENVIRONMENT = _environment()
GLOBALS = frozenset(_ENVIRONMENT.globals)
"""Names that Jinja itself gives to templates."""


class Template:
    """A text with `{{ name }}` in it. `label` says in messages what it is.

    Raises `ConfigError` when it is not a template.
    """

    def __init__(self, source: str, label: str) -> None:
        self.label, self.needs = label, _needs(source, label)
        self._render = _compiled(lambda: _ENVIRONMENT.from_string(source).render, label)

    def __call__(self, values: Values) -> str:
        """The text for these values. Raises `DataError` when it cannot be written."""
        return str(_evaluated(lambda: self._render(values), f"{self.label} cannot be written"))


class Expression:
    """A value computed from others: `price * 2`, `grade > 3`, `persona.country`."""

    def __init__(self, source: str, label: str) -> None:
        self.label, self.needs = label, _needs(f"{{{{ ({source}) }}}}", label)
        self._evaluate = _compiled(lambda: _ENVIRONMENT.compile_expression(source, undefined_to_none=False), label)

    def __call__(self, values: Values) -> Any:
        """The value. Raises `DataError` when it cannot be computed."""
        return _evaluated(lambda: _known(self._evaluate(**values)), f"{self.label} cannot be computed")


def is_template(source: str) -> bool:
    """Whether the text has braces of a template; otherwise it is an expression."""
    return "{{" in source or "{%" in source


def check_names(part: Template | Expression, known: Iterable[str]) -> None:
    """Raises `ConfigError` for a name that nothing defines."""
    allowed = set(known)
    for name in sorted(part.needs - allowed):
        raise ConfigError(f"{part.label} uses {name!r}, which is no attribute and no column of the rows; {did_you_mean(name, allowed)}")


def _needs(source: str, label: str) -> frozenset[str]:
    names: set[str] = _compiled(lambda: meta.find_undeclared_variables(_ENVIRONMENT.parse(source)), label)
    return frozenset(names) - GLOBALS


def _compiled(make: Callable[[], Any], label: str) -> Any:
    try:
        return make()
    except TemplateError as error:
        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        raise ConfigError(f"{label} is not Jinja: {line}{error.message}") from None


def _evaluated(make: Callable[[], Any], failed: str) -> Any:
    try:
        return make()
    except Exception as error:
        raise DataError(f"{failed}: {error or type(error).__name__}") from error


def _known(value: Any) -> Any:
    if isinstance(value, _Missing):
        str(value)  # raises, with the names that are there
    return value
