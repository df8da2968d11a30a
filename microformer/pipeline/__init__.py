"""What joins the rooms: settings and text in, a trained run out; a run and a prompt in, text out.

preparing   settings → prepared data
starting    another run's weights, or another program's → a run
exporting   a run → another program's files
describing  what run.json says at first
training    prepared data → model → loop → checkpoints, figures, picture and sample in the run folder
components  components of the user's own: read, tried out, built
checking    a component of the user's own → what is said of it
text        run folder → ids → text; the loss of a run over a text
losses      the loss of each token → by kind, and the passages that cost most
inspecting  a run's page, served and opened
watching    the same beside a training
report      what is said before and after a training
doctor      a machine and a folder → what is well with them, and what to do

Names are brought in when they are first used: what looks whether torch can be imported must not import it here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microformer.pipeline.checking import check
    from microformer.pipeline.exporting import export, how_to_use
    from microformer.pipeline.inspecting import inspect
    from microformer.pipeline.preparing import how_to_prepare, prepare, prepared_data, source_of
    from microformer.pipeline.report import draw_positions
    from microformer.pipeline.starting import import_model
    from microformer.pipeline.text import as_read, check_memory, evaluate, generate, stream_text
    from microformer.pipeline.training import train
    from microformer.pipeline.watching import Watching

__all__ = [
    "Watching", "as_read", "check", "check_memory", "draw_positions", "evaluate", "export", "generate",
    "how_to_prepare", "how_to_use", "import_model", "inspect", "prepare", "prepared_data", "source_of",
    "stream_text", "train",
]  # fmt: skip

_HOMES = {
    "checking": ("check",),
    "exporting": ("export", "how_to_use"),
    "inspecting": ("inspect",),
    "preparing": ("how_to_prepare", "prepare", "prepared_data", "source_of"),
    "report": ("draw_positions",),
    "starting": ("import_model",),
    "text": ("as_read", "check_memory", "evaluate", "generate", "stream_text"),
    "training": ("train",),
    "watching": ("Watching",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
