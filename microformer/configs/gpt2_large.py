"""GPT-2's third: 774,030,080 parameters with its own vocabulary; the rest as in gpt2.py."""

from microformer.configs.gpt2 import *

EMBED_DIM = 1280
NUM_HEADS = 20
NUM_LAYERS = 36
FF_DIM = 5120
LEARNING_RATE = 2.5e-4
