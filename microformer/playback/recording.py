"""A function, written down: what it needs, in which places, and that it comes out the same."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from microformer import devices
from microformer.playback.calls import Call, Listening, NotTheSame, Seen, needed
from microformer.playback.places import Places
from microformer.playback.repeating import repeated

Function = Callable[[], Sequence[Tensor]]

# Of two threads that listen at once, the one that ends last would leave PyTorch taking it that somebody still does.
_ONE_AT_A_TIME = threading.Lock()


def recorded(function: Function, given: Sequence[Tensor]) -> Function:
    """Writes down what a function does. Nothing is done by that: what is in `given` stays, and so do the numbers that
    PyTorch would draw next.

    Args:
        function: reads `given`, and writes there what is to be remembered for the next time. All else that it reads
            must not change any more: what follows from that alone isn't computed again.
        given: what changes from one time to the next.

    Returns:
        What does it once more with what is in `given` by then, to be called where no gradient is asked for. Its answers
        are the same tensors each time, which the next call writes over.

    Raises:
        NotTheSame: it can't be played back, or that does not give the same as the function does, bit for bit. (What
            Python reads of a tensor with `tolist` or `numpy` PyTorch does not tell.)
    """
    drawn, before = torch.get_rng_state(), [one.detach().clone() for one in given]

    @torch.no_grad()
    def begin_again() -> None:
        # What is as it was may be in use by another thread.
        if not torch.equal(torch.get_rng_state(), drawn):
            torch.set_rng_state(drawn)
        for one, value in zip(given, before, strict=True):
            if not torch.allclose(one, value, rtol=0, atol=0, equal_nan=True):
                one.copy_(value)

    try:
        expected = [one.detach().clone() for one in (*function(), *given)]
        begin_again()
        with _ONE_AT_A_TIME, Listening(given) as listening:
            answers = function()
        answers = [listening.seen(one) for one in answers]
        begin_again()
        devices.give_back_freed_memory()  # from now on there is other memory, beside which it would only lie there
        with torch.no_grad():
            play = _player(needed(listening.calls, map(listening.seen, given)), answers)
            found = [*play(), *given]
        if not all(torch.equal(one, value) for one, value in zip(found, expected, strict=True)):
            raise NotTheSame("played back, it gives something else.")
    except (RuntimeError, TypeError) as error:  # an operation that can't be repeated; the function's own comes again
        raise NotTheSame(str(error)) from error
    finally:
        begin_again()
    del expected, found
    devices.give_back_freed_memory()
    return play


def _let_go(tensors: Sequence[Tensor]) -> None:
    for one in tensors:  # and with it all that look there: quicker than to turn each of them away
        one.untyped_storage().resize_(0)


def _player(calls: Sequence[Call], wanted: Sequence[Seen]) -> Function:
    places, again = Places(calls, wanted), []
    for i, call in enumerate(calls):
        if work := repeated(call, places):
            again.append(work)
        if left := places.left_after(i):
            again.append(partial(_let_go, left))
    answers = [places.of(one) for one in wanted]

    def play() -> Sequence[Tensor]:
        for one in again:
            one()
        return answers

    return play
