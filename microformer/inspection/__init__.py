"""Looking inside a run's model, and editing it while it works: lenses, head scores, the page and its server.

    from microformer import load_run
    from microformer.inspection import trace, logit_lens, head_scores

Reads models, and changes none. Knows nothing of training.
"""

from microformer.inspection.activations import (
    Activations,
    HookPoint,
    TraceError,
    run_with_cache,
    run_with_hooks,
)
from microformer.inspection.edits import Edit, EditError, parse, tap_of
from microformer.inspection.trace import Trace, edited, trace

__all__ = [
    "Activations", "Edit", "EditError", "HookPoint", "Trace", "TraceError", "edited", "parse", "run_with_cache",
    "run_with_hooks", "tap_of", "trace",
]  # fmt: skip
