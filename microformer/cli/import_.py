"""`import`: another program's model as a run here."""

import argparse
from pathlib import Path

from microformer.cli.words import number


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "path", metavar="PATH", help="a Hugging Face folder, nanoGPT's ckpt.pt, minGPT's model.pt, or owner/name"
    )
    verb.add_argument("--run", metavar="NAME", help="the run's name [the path's and a number]")
    verb.add_argument(
        "--tokenizer", metavar="PATH", help="where it is not beside the model: a folder, a meta.pkl, or the text (.txt)"
    )
    verb.add_argument("--num-heads", type=number("--num-heads", int), metavar="N", help="where a minGPT has no name")


def act(args: argparse.Namespace) -> int:
    from microformer import pipeline

    run = pipeline.import_model(args.path, args.run, Path(args.tokenizer) if args.tokenizer else None, args.num_heads)
    spec, info = run.spec, run.info
    print(f"run         {run.folder}")
    print(f"from        {args.path}: {info['imported']}")
    print(f"model       {spec.num_layers} layers, {spec.embed_dim} wide, context {spec.max_seq_len}: "
          f"{info['parameters']:,} parameters")  # fmt: skip
    print(f"tokenizer   {run.tokenizer.kind}, {run.tokenizer.vocab_size:,} tokens")
    print(f"write       microformer generate {run.name}")
    print(f"fine-tune   microformer train --from {run.name} --corpus FILE")
    return 0
