"""`new`: a start for a component of the user's own."""

import argparse
import os
from pathlib import Path

from microformer import templates
from microformer.errors import SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("slot", metavar="SLOT", help=f"what it is for: {', '.join(templates.SLOTS)}")
    verb.add_argument("file", metavar="FILE", help="the file to write, such as my_attention.py")


def act(args: argparse.Namespace) -> int:
    from microformer import files

    path = Path(args.file)
    name = templates.class_name(path)
    text = templates.start(args.slot, name)
    if os.path.lexists(path):
        raise SettingsError(f"{path} is there already.", "choose another name, or take it away.")
    files.write_text(path, text)
    component = f"{path.as_posix()}:{name}"
    print(f"wrote     {path}")
    print(f"check it  microformer check {component}")
    print(f'use it    {args.slot.upper()} = "{component}" in config.py, or microformer train --{args.slot} {component}')
    return 0
