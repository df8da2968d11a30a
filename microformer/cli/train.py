"""`train`: prepares first if needed."""

import argparse
import signal
import sys
from contextlib import redirect_stdout

from microformer.cli.showing import GoesOn
from microformer.cli.words import add_settings, add_trust, given
from microformer.errors import INTERRUPTED, SettingsError
from microformer.settings import GROUPS


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", metavar="FILE", help="a config file, a run's run.json, or a ready one [config.py]")
    verb.add_argument("--run", metavar="NAME", help="the run's name [the corpus's and a number]")
    verb.add_argument("--resume", action="store_true", help="continue the run named, or the latest")
    verb.add_argument("--from", dest="start", metavar="RUN", help="begin with another run's model and tokenizer")
    verb.add_argument("--watch", action="store_true", help="open the page that looks inside, while it trains")
    verb.add_argument("--no-browser", action="store_true", help="with --watch: print the page's address and no more")
    # For who trains many: see experiments/cells.py.
    verb.add_argument("--prepared", metavar="FINGERPRINT", help=argparse.SUPPRESS)
    verb.add_argument("--until-input-ends", action="store_true", help=argparse.SUPPRESS)
    add_trust(verb)
    add_settings(verb, list(GROUPS))


def act(args: argparse.Namespace) -> int:
    said = given(args)
    if args.resume and args.config:
        raise SettingsError(
            "--resume goes on with the run's own settings, and --config names others.", "leave one out."
        )
    if args.resume and args.start:
        raise SettingsError("--resume goes on with a run, and --from begins a new one.", "leave one out.")
    if args.until_input_ends:
        from microformer.pipeline.watching import end_with_input

        end_with_input(lambda: signal.raise_signal(signal.SIGINT))
    from microformer import settings

    if not args.resume:
        settings.resolve(args.config, said)  # a mistake is told before torch takes its second to load
    from microformer import pipeline

    with redirect_stdout(GoesOn(sys.stdout)), pipeline.Watching(not args.no_browser) as page:
        begun = page.open if args.watch else None
        how = {"run": args.run, "resume": args.resume, "start": args.start, "trust_code": args.trust_code}
        how["prepared"] = args.prepared
        run = pipeline.train(args.config, begun=begun, **how, **said)
        ended = run.info["ended"]
        if ended and ended["how"] == "interrupted":
            return INTERRUPTED
        page.stay()
    return 0
