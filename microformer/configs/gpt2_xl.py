"""GPT-2's largest: 1,557,611,200 parameters with its own vocabulary; the rest as in gpt2.py."""

from microformer.configs.gpt2 import *

EMBED_DIM = 1600
NUM_HEADS = 25
NUM_LAYERS = 48
FF_DIM = 6400
LEARNING_RATE = 2e-4
