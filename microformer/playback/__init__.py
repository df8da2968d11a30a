"""The work of a function on a CPU, written down once and from then on played back without the Python between.

A small model's token is a hundred operations of a microsecond or two each, its training step some hundreds, and finding
out which comes next takes as long again: modules are called, shapes are asked for, memory is taken, views are made,
a graph is built for the gradient. All of that comes out the same each time. So the function is run once while PyTorch
tells each of its operations (calls.py), and what is kept is a list of those that compute something from what changes
(repeating.py), each with the very tensors that it is to read and to write (places.py). What CUDA graphs are to a GPU,
without their hardware.

    recording.py    a function, written down            gradients.py    a function and its gradient

Knows nothing of models.
"""

from microformer.playback.calls import NotTheSame
from microformer.playback.gradients import Known, gradient, handed_over, with_gradient
from microformer.playback.recording import recorded

__all__ = ["Known", "NotTheSame", "gradient", "handed_over", "recorded", "with_gradient"]
