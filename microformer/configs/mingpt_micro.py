"""minGPT's gpt-micro: 4 layers, 128 wide; the rest as in mingpt_mini.py."""

from microformer.configs.mingpt_mini import *

EMBED_DIM = 128
NUM_HEADS = 4
NUM_LAYERS = 4
FF_DIM = 512
