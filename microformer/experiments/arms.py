"""What is compared. Knows settings, and nothing of how they are trained.

attention=window(256)*3 softmax norm=rmsnorm        an arm in words: settings and their values, as they are spelt
                                                    on a command line; each `name=` begins another
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from microformer.errors import SettingsError, nearest
from microformer.settings import BUDGETS, Settings, convert, model_spec

# The name of a setting in any of its three spellings, at the beginning of a word.
_NAME = re.compile(r"(?:^|(?<=\s))-{0,2}([A-Za-z][\w-]*)\s*=\s*")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: what the table calls it.
        changes: the settings in which it differs from the base, by name.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, base: Settings, seed: int) -> Settings:
        """The settings of its training with a seed.

        Raises:
            SettingsError: a change that can't be.
        """
        return base.changed({**self.changes, "seed": seed})


def parsed(words: str) -> Arm:
    """An arm from its words, which are its name too.

    Raises:
        SettingsError: it names no setting, one that there is not, one twice or without a value, or a value that can't
            be read; or SEED, which is the comparison's own.
    """
    changes: dict[str, Any] = {}
    known = Settings().flat()
    for spelt, value in _pairs(words):
        name = spelt.lower().replace("-", "_")
        if name not in known:
            meant = nearest(name, known)
            listed = "docs/settings.md lists them all."
            raise SettingsError(
                f'there is no setting "{spelt}" in {words!r}.', f"did you mean {meant}? {listed}" if meant else listed
            )
        if name == "seed":
            raise SettingsError(
                f"{words!r} sets SEED.", "every arm is trained with the same seeds: --seeds says how many."
            )
        if name in changes:
            raise SettingsError(f"{words!r} sets {name} twice.", "leave one out; two values make two arms.")
        if not value:
            raise SettingsError(f"{words!r} gives {name} no value.", f"write it behind the sign: {name}={known[name]}.")
        changes[name] = convert(name, value)
    if any(name in changes for name in BUDGETS):
        # As on a command line: a budget replaces the base's, whatever that is in.
        changes = {name: type(known[name])(0) for name in BUDGETS} | changes
    return Arm(" ".join(words.split()), changes)


def _pairs(words: str) -> Iterator[tuple[str, str]]:
    """Names and values. What looks like a name inside of brackets belongs to the value: rope(base=500, share=0.5)."""
    depths, depth = [], 0
    for letter in words:
        depth += (letter in "([") - (letter in ")]")
        depths.append(depth)
    found = [one for one in _NAME.finditer(words) if not one.start() or depths[one.start() - 1] <= 0]
    if not found or words[: found[0].start()].strip():
        raise SettingsError(
            f"{words!r} does not begin with a setting." if found else f"{words!r} names no setting.",
            "an arm is settings with values: attention=entmax15, or attention=entmax15 norm=rmsnorm.",
        )
    for one, after in zip(found, [*found[1:], None], strict=True):
        value = words[one.end() : after.start() if after else len(words)].strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        yield one[1], value[1:-1] if quoted else value


def check(arms: Sequence[Arm], base: Settings, seeds: Sequence[int]) -> None:
    """Finds what is wrong with a comparison before time goes into it.

    Raises:
        SettingsError: fewer than two arms or one seed, two arms of one name or the same settings, or a change that
            can't be.
    """
    if len(arms) < 2 or not seeds:
        raise SettingsError(
            f"{len(arms)} arms and {len(seeds)} seeds are nothing to compare.", "give two arms and one seed at least."
        )
    seen: dict[str, str] = {}
    for arm in arms:
        if arm.name in seen.values():
            raise SettingsError(f"two arms are called {arm.name!r}.", "give each a name of its own.")
        settings = arm.settings(base, seeds[0])
        # Two ways to write one model are one model: softmax, and softmax*2 of two layers.
        model = model_spec(settings, vocab_size=settings.model.vocab_size)
        if not any(getattr(settings.training, name) for name in BUDGETS):
            raise SettingsError(
                f"the arm {arm.name!r} would never end: EPOCHS, MAX_STEPS and MAX_MINUTES are all 0.",
                "set one of them, such as max_steps=500.",
            )
        said = repr((model, settings.data, settings.training, settings.machine))
        if said in seen:
            raise SettingsError(
                f"the arms {seen[said]!r} and {arm.name!r} have the same settings.", "change something in one of them."
            )
        seen[said] = arm.name
