"""What every component must satisfy, whoever wrote it. The tests run these over all that can be chosen.

A contract of a model is a function from its spec to a Verdict: kept or broken, with what was seen. Optimizers and
schedules have contracts of their own. All build small models and know nothing of tests, files or training; `cost` says
what a part costs beside another.
"""

from microformer.contracts.model import CONTRACTS, check, trial
from microformer.contracts.optimizer import OPTIMIZER_CONTRACTS, check_optimizer
from microformer.contracts.schedule import SCHEDULE_CONTRACTS, check_schedule
from microformer.contracts.verdict import Verdict

__all__ = [
    "CONTRACTS", "OPTIMIZER_CONTRACTS", "SCHEDULE_CONTRACTS", "Verdict", "check", "check_optimizer", "check_schedule",
    "trial",
]  # fmt: skip
