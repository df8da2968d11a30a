"""A report: one HTML file that says of runs, or of a comparison, what somebody else would ask.

facts      what run.json and the metrics say, in words and figures
samples    what the model wrote at one prompt and seed, from snapshot to snapshot
looks      where heads looked, from probe to probe
page       all of it in one file

The file stands alone: no network, no script, both colour schemes, on paper too. Names and texts are shown as they are
and can't become markup: Jinja escapes them, and the page's own policy lets nothing run. The same runs give the same
bytes; nothing is trained, and no run is changed.
"""

from microformer.experiments.reporting.page import page, report

__all__ = ["page", "report"]
