"""The one grammar in which a component is named, wherever it is. Knows no torch, and no component.

    softmax                             one kind
    rope(base=500000)                   a kind with its arguments
    gelu*3 swiglu                       a pattern over the layers, repeated until every layer has its part
    my_attention.py:MyAttention(k=3)    a class in a file of the user's own, with its arguments

A word leads to a kind's spec, a file to an `Own`. Whether the file is there, and what it holds, is not asked here: a
run's settings are read where nothing of it may be executed.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from typing import Any

from microformer.errors import SettingsError, nearest

MOST_LAYERS = 1000


@dataclass(frozen=True)
class Own:
    """A component in a file of the user's own.

    Args:
        file: its path, as it was written.
        name: the class.
        arguments: what the class is given besides what every component of its slot is, by name.
        made: the class itself, once its file was run (own_code.py); None before.
    """

    file: str
    name: str
    arguments: tuple[tuple[str, int | float | bool | str], ...] = ()
    made: type | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        return f"{self.file}:{self.name}" + (f"({said})" if said else "")

    @property
    def file_name(self) -> str:
        """The file's name without its folders, whichever system's they are."""
        return re.split(r"[\\/]", self.file)[-1]

    def build(self, *given: Any) -> Any:
        """The component.

        Args:
            given: what every component of its slot is given.
        """
        return self.loaded(*given, **dict(self.arguments))

    @property
    def loaded(self) -> type:
        """The class.

        Raises:
            SettingsError: its file was not run.
        """
        if self.made is None:
            raise SettingsError(
                f"{self} was not loaded, and nothing can be built of it.",
                "`microformer.own_code` reads such files; `load_run` does so for a run.",
            )
        return self.made

    def says(self, what: str, otherwise: Any) -> Any:
        """What the class declares of itself; `otherwise` where it does not, or was not loaded."""
        return getattr(self.made, what, otherwise)


_FILE = r"(?:[A-Za-z]:)?[^\s():*]+\.py"
_ITEM = re.compile(rf"(?:(?P<file>{_FILE}):)?(?P<name>[A-Za-z_][\w-]*)(?:\((?P<args>[^()]*)\))?(?:\*(?P<times>\d+))?")


def one(text: str, kinds: Mapping[str, type], setting: str) -> Any:
    """The one component that `text` names.

    Args:
        text: such as `rope` or `rope(base=500000)`.
        kinds: the words this slot knows.
        setting: the slot's setting, for the error.

    Raises:
        SettingsError: an unknown kind, wrong arguments, or a pattern where one component is wanted.
    """
    found = _pattern(text, kinds, setting)
    if len(found) != 1:
        raise SettingsError(
            f"{setting} {text!r} names {len(found)} components, and one fills it.",
            f"name one of {', '.join(kinds)}." if kinds else "name one, such as my_file.py:MyClass.",
        )
    return found[0]


def per_layer(text: str, kinds: Mapping[str, type], setting: str, num_layers: int) -> tuple[Any, ...]:
    """A component for each layer from a pattern such as `gelu*3 swiglu`, repeated to the model's depth.

    Raises:
        SettingsError: an unknown kind, wrong arguments, or a pattern longer than the model is deep.
    """
    pattern = _pattern(text, kinds, setting)
    if len(pattern) > max(num_layers, 1):
        raise SettingsError(
            f"{setting} {text!r} describes {len(pattern)} layers, and the model has {num_layers}.",
            "shorten the pattern, or raise NUM_LAYERS.",
        )
    return tuple(pattern[i % len(pattern)] for i in range(num_layers))


def own(text: str, setting: str) -> Own | None:
    """The own component that `text` names; None where it is a word.

    Raises:
        SettingsError: it names a file, and can't be read.
    """
    return one(text, {}, setting) if ".py" in text else None


def to_json(component: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A component as plain JSON values."""
    if isinstance(component, Own):
        return {
            "kind": "own", "file": component.file, "name": component.name, "arguments": dict(component.arguments)
        }  # fmt: skip
    word = next(word for word, kind in kinds.items() if kind is type(component))
    return {"kind": word, **asdict(component)}


def from_json(plain: Mapping[str, Any], kinds: Mapping[str, type]) -> Any:
    """The component that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    values = dict(plain)
    kind = values.pop("kind")
    if kind == "own":
        if not all(isinstance(value, int | float | str) for value in values["arguments"].values()):
            raise TypeError("an argument is neither number nor word")
        return Own(str(values["file"]), str(values["name"]), tuple(values["arguments"].items()))
    return _filled(kinds[kind], values)


def written(components: Sequence[Any], kinds: Mapping[str, type]) -> str:
    """The setting that names these components, one a layer; a single one: `rope(base=500000)`."""
    words: list[str] = []
    for component, alike in groupby(components):
        word = str(component) if isinstance(component, Own) else _word(component, kinds)
        times = len(list(alike))
        words.append(f"{word}*{times}" if 1 < times < len(components) else word)
    return " ".join(words)


def _word(component: Any, kinds: Mapping[str, type]) -> str:
    word = next(word for word, kind in kinds.items() if kind is type(component))
    said = {one.name: getattr(component, one.name) for one in fields(component)}
    said = [f"{name}={value!r}" for name, value in said.items() if value != getattr(type(component)(), name)]
    return f"{word}({', '.join(said)})" if said else word


def _pattern(text: str, kinds: Mapping[str, type], setting: str) -> list[Any]:
    found: list[Any] = []
    rest = text.strip()
    while rest:
        match = _ITEM.match(rest)
        whole = match is not None and (match.end() == len(rest) or rest[match.end()].isspace())
        # The first word of a path with a space in it looks like a kind.
        if match is None or not whole or (".py" in rest and not match["file"] and match["name"] not in kinds):
            raise SettingsError(
                f"{setting} {text!r} can't be read at {rest!r}.",
                "a class in a file is written my_file.py:MyClass, without spaces; with arguments "
                "my_file.py:MyClass(name=value)."
                if ".py" in rest
                else f"write a kind ({', '.join(kinds)}), with arguments as kind(name=value), repeated as kind*3.",
            )
        times = match["times"] or "1"
        if len(times) > 4 or not 1 <= int(times) <= MOST_LAYERS:
            raise SettingsError(
                f"{setting} {match[0]!r} can't be: it must be repeated from 1 to {MOST_LAYERS} times.",
                "a pattern is repeated by itself until every layer has its part.",
            )
        if match["file"]:
            component = _own(match["file"], match["name"], match["args"], setting)
        else:
            component = _component(match["name"], match["args"], kinds, setting)
        found += [component] * int(times)
        rest = rest[match.end() :].lstrip()
    if not found:
        raise SettingsError(f"{setting} is empty.", f"name one of {', '.join(kinds)}.")
    return found


def _component(name: str, arguments: str | None, kinds: Mapping[str, type], setting: str) -> Any:
    kind = kinds.get(name)
    if kind is None and not kinds:
        raise SettingsError(f"{setting} {name!r} names no class in a file.", "write it as my_file.py:MyClass.")
    if kind is None:
        meant = nearest(name, kinds)
        hint = f"did you mean {meant!r}? There are: {', '.join(kinds)}." if meant else f"there are: {', '.join(kinds)}."
        raise SettingsError(f"{setting} {name!r} is not known.", hint)
    wanted = ", ".join(f"{field.name}={field.default}" for field in fields(kind))
    hint = f"{name} takes ({wanted})." if wanted else f"{name} takes no arguments."
    try:
        return _filled(kind, _arguments(arguments, [field.name for field in fields(kind)]))
    except (SyntaxError, ValueError, TypeError) as error:
        raise SettingsError(f"{setting} {name}({arguments}) has arguments that {name} can't take.", hint) from error


def _own(file: str, name: str, arguments: str | None, setting: str) -> Own:
    try:
        given = _arguments(arguments, [])
        for value in given.values():
            if not isinstance(value, (bool, str)):
                _check_number(value)
    except (SyntaxError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{setting} {file}:{name}({arguments}) has arguments that can't be read.",
            f"write each by its name, a number, True, False or a word in quotes: {name}(width=3).",
        ) from error
    return Own(file, name, tuple(given.items()))


def _arguments(written: str | None, names: list[str]) -> dict[str, Any]:
    """Arguments by name, as Python's literals. names: what those without a name are of, in order."""
    call = ast.parse(f"f({written or ''})", mode="eval").body
    assert isinstance(call, ast.Call)
    if len(call.args) > len(names):
        raise TypeError("too many arguments")
    values = list(zip(names, call.args, strict=False))
    values += [(str(keyword.arg), keyword.value) for keyword in call.keywords]
    if len(dict(values)) < len(values):
        raise TypeError("an argument twice")
    return {named: ast.literal_eval(value) for named, value in values}


def _filled(kind: type, arguments: Mapping[str, Any]) -> Any:
    """The component of a kind with these arguments, each a number of the field's own type."""
    types = {field.name: field.type for field in fields(kind)}
    for value in arguments.values():
        _check_number(value)
    return kind(**{name: float(value) if types.get(name) is float else value for name, value in arguments.items()})


def _check_number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise TypeError(f"{value!r} is not a number that can be used")
