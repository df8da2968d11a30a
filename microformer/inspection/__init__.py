"""Looking inside a run's model, and editing it while it works: lenses, head scores, the page and its server.

    from microformer import load_run
    from microformer.inspection import trace, logit_lens, head_scores

Reads models, and changes none. Knows nothing of training.
"""

from microformer.inspection.activations import (
    Activations,
    HookPoint,
    TraceError,
    act_name,
    run_with_cache,
    run_with_hooks,
)
from microformer.inspection.attribution import decompose_resid, direct_logit_attribution
from microformer.inspection.circuits import ov_table, qk_table
from microformer.inspection.edits import Edit, EditError, parse, tap_of
from microformer.inspection.heads import DEFINITIONS, head_scores
from microformer.inspection.knockout import Effect, KnockOut, effect, knock_out_map
from microformer.inspection.lens import accumulated_resid, logit_lens, residual_norms
from microformer.inspection.patching import ablate, patch
from microformer.inspection.trace import Trace, edited, trace
from microformer.inspection.weights import Weights

__all__ = [
    "DEFINITIONS", "Activations", "Edit", "EditError", "Effect", "HookPoint", "KnockOut", "Trace", "TraceError",
    "Weights", "ablate", "accumulated_resid", "act_name", "decompose_resid", "direct_logit_attribution", "edited",
    "effect", "head_scores", "knock_out_map", "logit_lens", "ov_table", "parse", "patch", "qk_table", "residual_norms",
    "run_with_cache", "run_with_hooks", "tap_of", "trace",
]  # fmt: skip
