"""How an example is put to a model: a template and the texts of the possible answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from polyprefix.config import ConfigError, digest


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    # No escaping: this is a prompt, not HTML. A field that the example lacks is an error rather
    # than an empty text, and a template of somebody else's task can do nothing but make text.
    return ImmutableSandboxedEnvironment(
        autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True
    )


@cache
def _compile(template: str) -> Template:
    return _environment().from_string(template)


@dataclass(frozen=True)
class Prompt:
    r"""A Jinja2 template and the answers, in the order of the task's labels.

    The model reads ``render(fields) + choice``. The space between the two belongs to the choice:
    tokenizers of every family join a leading space to the word, and a prompt that ends in one
    makes a token boundary that no model has seen. Field values are data: braces, percent signs
    and anything else that looks like Jinja stay as they are.

    Attributes:
        template: for example ``"{{ text }}\nTopic:"``.
        choices: for example ``(" science", " travel")``.

    Raises:
        ConfigError: the template is not Jinja2, or ends in white space; a choice does not start
            with a space or stands there twice.
    """

    template: str
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        try:
            _compile(self.template)
        except TemplateError as error:
            raise ConfigError(f"prompt template {self.template!r}: {error}") from None
        if self.template != self.template.rstrip():
            raise ConfigError(
                f"prompt template {self.template!r} ends in white space: the space before the "
                "answer belongs to the choices"
            )
        for choice in self.choices:
            if not choice.startswith(" ") or choice != f" {choice.strip()}" or not choice.strip():
                raise ConfigError(f"choice {choice!r}: expected one space and then the answer")
        if len(set(self.choices)) != len(self.choices):
            raise ConfigError(f"the choices {self.choices} are not all different")

    def render(self, fields: Mapping[str, str]) -> str:
        """The prompt of one example, without an answer.

        Raises:
            ConfigError: the template uses a field that ``fields`` lacks.
        """
        try:
            return _compile(self.template).render(fields)
        except TemplateError as error:
            there = ", ".join(fields) or "none"
            raise ConfigError(
                f"prompt template {self.template!r}: {error}; the example's fields are {there}"
            ) from None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the template uses, in the order in which they first stand in it."""
        names = meta.find_undeclared_variables(_environment().parse(self.template))
        return tuple(sorted(names, key=self.template.find))

    @property
    def version(self) -> str:
        """Twelve hex digits that change with any change of the template or the choices."""
        return digest({"template": self.template, "choices": list(self.choices)})[:12]
