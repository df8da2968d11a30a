"""Observers: who is told what training does, and may ask it to stop. The loop calls them and knows none of them."""

from typing import Any

Row = dict[str, int | float]


class Observer:
    """Sees everything, does nothing: the base of the others, and the null object.

    A row holds `step`, `tokens` and `seconds`, and of `train_loss`, `val_loss`, `val_exact_match` (a task's, a share),
    `lr`, `grad_norm` and `tokens_per_second` those measured at that step. Losses in nats a token.
    """

    def on_step(self, step: int, progress: float, seconds: float) -> None:
        """After every step; must be cheap, and nothing here has waited for the device."""

    def on_row(self, row: Row) -> None:
        """After every step at which something was measured."""

    def wants_to_stop(self) -> str | None:
        """Why training should end now; None to go on. Asked after each row."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What it must remember over a resume, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""


class EarlyStopping(Observer):
    """Stops when validation has not improved for a while.

    Args:
        patience: validations in a row without a better one that are put up with; 0 never stops.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.best = float("inf")
        self.without = 0

    def on_row(self, row: Row) -> None:
        if "val_loss" not in row:
            return
        if row["val_loss"] < self.best:
            self.best, self.without = row["val_loss"], 0
        else:
            self.without += 1

    def wants_to_stop(self) -> str | None:
        if self.patience and self.without >= self.patience:
            return f"validation has not improved {self.without} times in a row"
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.best == float("inf") else self.best, "without": self.without}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = float("inf") if state["best"] is None else state["best"]
        self.without = state["without"]
