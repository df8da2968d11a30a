"""Prepares data/corpus.txt, or what the flags name, for training: the door to `microformer prepare`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone works before it is installed

from microformer.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
