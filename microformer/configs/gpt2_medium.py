"""GPT-2's second: 354,823,168 parameters with its own vocabulary; the rest as in gpt2.py."""

from microformer.configs.gpt2 import *

EMBED_DIM = 1024
NUM_HEADS = 16
NUM_LAYERS = 24
FF_DIM = 4096
LEARNING_RATE = 3e-4
