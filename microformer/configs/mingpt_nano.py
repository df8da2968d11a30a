"""minGPT's gpt-nano: 3 layers, 48 wide; the rest as in mingpt_mini.py."""

from microformer.configs.mingpt_mini import *

EMBED_DIM = 48
NUM_HEADS = 3
NUM_LAYERS = 3
FF_DIM = 192
