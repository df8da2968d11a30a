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

    def on_gradients(self, step: int) -> None:
        """Before a step that will be logged is taken: the model has its gradients, and they are not clipped yet. (Of a
        run by the clock, not before its last step, which can't be foreseen.)"""

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
        on_exact_match: whether a task's exact match is what has to improve, and not the loss; then it stops too where
            every example held out is right.
    """

    def __init__(self, patience: int, on_exact_match: bool = False):
        self.patience = patience
        self.on_exact_match = on_exact_match
        self.best = float("inf")
        self.without = 0

    def on_row(self, row: Row) -> None:
        if "val_loss" not in row:
            return
        # The lower the better, of both.
        found = -row["val_exact_match"] if self.on_exact_match else row["val_loss"]
        if found < self.best:
            self.best, self.without = found, 0
        else:
            self.without += 1

    def wants_to_stop(self) -> str | None:
        if self.on_exact_match and self.best == -1.0:
            return "every example held out is right"
        if self.patience and self.without >= self.patience:
            return f"validation has not improved {self.without} times in a row"
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.best == float("inf") else self.best, "without": self.without}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = float("inf") if state["best"] is None else state["best"]
        self.without = state["without"]
