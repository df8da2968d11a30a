"""The road to the loss: as it stands, compiled, recorded, or shared among cores. Knows which training takes which."""

from torch import Tensor

from microformer import devices, playback
from microformer.models.model import Microformer
from microformer.models.state import State
from microformer.settings import Settings
from microformer.training.loop import LossAndState
from microformer.training.shares import shared, worth_sharing

# So many multiplications last a quarter of a second on two cores, and what Python does between them a fiftieth of that.
_SMALL = 5e9


def fast_loss(
    chosen: Settings, model: Microformer, compute: devices.Compute, *, masked: bool, own: bool, after: int = 200
) -> LossAndState | None:
    """The model's loss by a faster road: compiled where that is wished, recorded on a CUDA GPU, and on a CPU, where it
    is not compiled, recorded if a step is small, and shared among the cores if it is large enough. None: as it stands.

    Args:
        masked: whether most batches have a mask. The others, such as the last of an epoch, take the plain road: one
            step in many is not worth compiling or recording for.
        own: whether components of the user's own are in the model.
        after: how many steps there are on a CPU before it is recorded.
    """
    plain = model.loss_and_state
    whole = devices.compiled(plain, "the model") if chosen.machine.compile else plain
    # A memory changes its sizes, a component of one's own may do anything, and the gradients of a batch's parts would
    # all be written to one place.
    same_work = not model.spec.carries and not own and chosen.training.accumulate == 1
    batch_size = chosen.training.batch_size
    operations = batch_size * model.spec.max_seq_len * _for_a_token(model)

    def alone(ids: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        return whole(ids, targets, mask, None)[0]

    weights, small = list(model.parameters()), operations <= _SMALL
    play = None
    if same_work and compute.device == "cuda":
        play = devices.recorded(alone, weights, "the training step")
    elif same_work and compute.device == "cpu" and whole is plain:
        if model.spec.by_sequence and worth_sharing(operations, weights, batch_size, compute.threads):
            play = shared(alone, weights, compute.threads, after if small else None)
        elif small:
            play = playback.with_gradient(alone, weights, after)
    if play is None and whole is plain:
        return None

    def loss(ids: Tensor, targets: Tensor, mask: Tensor | None, state: State | None) -> tuple[Tensor, State | None]:
        if (mask is not None) != masked:
            return plain(ids, targets, mask, state)
        return whole(ids, targets, mask, state) if play is None else (play(ids, targets, mask), None)

    return loss


def _for_a_token(model: Microformer) -> int:
    """The multiplications of a token's way through the model, those with other tokens aside."""
    spec, roles = model.spec, model.roles()
    once = sum(one.numel() for name, one in model.named_parameters() if roles[name] != "embedding")
    again = (spec.loops - 1) * sum(one.numel() for one in model.blocks.parameters())
    return once + again + spec.tie_embeddings * spec.vocab_size * spec.embed_dim
