"""The controls of a page, made from the fields of `StyleConfig`, and their values as options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from tfstyle.config import OPTION_GROUPS, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.web.limits import NAMES_ONLY, SERVER_OPTIONS

#: Fields that the simple view shows with controls of its own.
SIMPLE = ("quality", "size")
#: Title of each group of advanced options -> its fields, in the order of ``--help-all``.
ADVANCED_GROUPS: Mapping[str, Sequence[dataclasses.Field[Any]]] = {
    title: [
        field
        for field in dataclasses.fields(StyleConfig)
        if field.metadata["group"] == group and field.name not in (*SERVER_OPTIONS, *SIMPLE)
    ]
    for group, title in OPTION_GROUPS.items()
}
#: The fields under "Advanced", in the order of their controls.
ADVANCED = [field for fields in ADVANCED_GROUPS.values() for field in fields]


def make_control(field: dataclasses.Field[Any]) -> gr.components.Component:
    """Return the control of a field. An empty control leaves the option at its default."""
    label, text = field.name.replace("_", " "), field.metadata["help"]
    choices = list(NAMES_ONLY.get(field.name, field.metadata["choices"]))
    kind, default = str(field.type), _default(field)
    if kind == "bool":
        return gr.Checkbox(value=default, label=label, info=text)
    if choices and "tuple" in kind:
        chosen = [] if default is None else list(default)
        return gr.Dropdown(choices, value=chosen, multiselect=True, label=label, info=text)
    if choices:
        return gr.Dropdown(choices, value=default, label=label, info=text)
    if "tuple" in kind or "str" in kind:
        shown = (
            "" if default is None else ",".join(map(str, default)) if isinstance(default, tuple) else default
        )
        return gr.Textbox(value=shown, label=label, info=text, placeholder=field.metadata["shown"])
    if _optional(field):  # an empty gr.Number would show 0
        return gr.Textbox(label=label, info=text, placeholder=field.metadata["shown"] or "by the quality")
    return gr.Number(value=default, label=label, info=text, precision=0 if "int" in kind else None)


def _optional(field: dataclasses.Field[Any]) -> bool:
    """Return whether the control of a number can be empty, which leaves the choice to the run."""
    return field.metadata["default"] is None or bool(field.metadata["by_quality"])


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field on a page, where the weights are chosen as on the command line."""
    return "auto" if field.name == "weights" else field.metadata["default"]


def options_of(values: Sequence[Any], *, start: StyleConfig | None = None) -> dict[str, Any]:
    """Return the options that the values of the advanced controls set, without those at their defaults.

    Args:
        values: the value of each control of `ADVANCED`.
        start: the options of the preset that the controls change; by default those without a preset.

    Raises:
        ConfigError: a text should contain numbers, and contains something else.
    """
    options = {}
    for field, given in zip(ADVANCED, values, strict=True):
        value, default = _option_value(field, given), _default(field)
        if start is not None and field.name != "weights":
            default = getattr(start, field.name)
        always = start is None and field.metadata["by_quality"]
        if value is not None and (value != default or always):
            options[field.name] = value
    return options


def _option_value(field: dataclasses.Field[Any], given: Any) -> Any:
    kind = str(field.type)
    if given is None or given in ("", []):
        return None
    if "tuple" not in kind:
        number = float if "float" in kind else int if "int" in kind else None
        if number is not None and isinstance(given, str) and "str" not in kind:
            return _number(field, given, number)
        return str(int(given)) if field.name == "tile" and isinstance(given, float) else given
    items: list[Any] = [item.strip() for item in given.split(",")] if isinstance(given, str) else list(given)
    if "float" in kind or "int" in kind:
        try:
            return tuple((float if "float" in kind else int)(item) for item in items)
        except ValueError:
            raise ConfigError(f"{field.name} is {given!r}; give numbers with commas between them") from None
    return tuple(items)


def _number(field: dataclasses.Field[Any], text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(
            f"{field.name} is {text!r}; give {'an integer' if kind is int else 'a number'}"
        ) from None


def control_values(options: Mapping[str, Any]) -> list[Any]:
    """Return the values of the advanced controls that show given options."""
    values = []
    for field in ADVANCED:
        value = options.get(field.name, None if field.metadata["by_quality"] else _default(field))
        kind = str(field.type)
        if "tuple" in kind:
            items = list(value or ())
            value = items if field.metadata["choices"] else ",".join(map(str, items))
        elif _optional(field) and not field.metadata["choices"] and "bool" not in kind:
            value = "" if value is None else str(value)
        values.append(value)
    return values
