"""What is compared. Knows settings, and nothing of how they are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from microformer.errors import SettingsError
from microformer.settings import Settings, model_spec


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
        model_spec(settings, vocab_size=settings.model.vocab_size)
        said = repr(settings.flat())
        if said in seen:
            raise SettingsError(
                f"the arms {seen[said]!r} and {arm.name!r} have the same settings.", "change something in one of them."
            )
        seen[said] = arm.name
