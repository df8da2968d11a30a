"""The road to the loss: as it stands, compiled, or recorded. Knows which training can take which."""

from torch import Tensor

from microformer import devices, playback
from microformer.models.model import Microformer
from microformer.models.state import State
from microformer.settings import Settings
from microformer.training.loop import LossAndState

# So many multiplications last a quarter of a second on two cores, and what Python does between them a fiftieth of that.
_SMALL = 5e9


def fast_loss(
    chosen: Settings, model: Microformer, compute: devices.Compute, *, masked: bool, own: bool
) -> LossAndState | None:
    """The model's loss by a faster road: compiled where that is wished, recorded on a CUDA GPU, and on a CPU where a
    step is small and not compiled. None: as it stands.

    Args:
        masked: whether most batches have a mask. The others, such as the last of an epoch, take the plain road: one
            step in many is not worth compiling or recording for.
        own: whether components of the user's own are in the model.
    """
    plain = model.loss_and_state
    whole = devices.compiled(plain, "the model") if chosen.machine.compile else plain
    # A memory changes its sizes, a component of one's own may do anything, and the gradients of a batch's parts would
    # all be written to one place.
    same_work = not model.spec.carries and not own and chosen.training.accumulate == 1
    tokens, roles = chosen.training.batch_size * chosen.model.max_seq_len, model.roles()
    operations = tokens * sum(one.numel() for name, one in model.named_parameters() if roles[name] != "embedding")

    def alone(ids: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        return whole(ids, targets, mask, None)[0]

    play = None
    if same_work and compute.device == "cuda":
        play = devices.recorded(alone, list(model.parameters()), "the training step")
    elif same_work and compute.device == "cpu" and whole is plain and operations <= _SMALL:
        play = playback.with_gradient(alone, list(model.parameters()))
    elif whole is plain:
        return None

    def loss(ids: Tensor, targets: Tensor, mask: Tensor | None, state: State | None) -> tuple[Tensor, State | None]:
        if (mask is not None) != masked:
            return plain(ids, targets, mask, state)
        return whole(ids, targets, mask, state) if play is None else (play(ids, targets, mask), None)

    return loss
