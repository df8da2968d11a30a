"""What every component must satisfy, whoever wrote it. The tests run these over all that can be chosen.

A contract is a function from a model's spec to a Verdict: kept or broken, with what was seen. It builds small models
of its own and knows nothing of tests, files or training.
"""

from microformer.contracts.model import CONTRACTS, Verdict, check

__all__ = ["CONTRACTS", "Verdict", "check"]
