"""Seconds on a GPU, to nanoGPT's loss on Tiny Shakespeare (1.4697): a model of its size with what is new here."""

EMBED_DIM = 384
NUM_HEADS = 6
NUM_LAYERS = 6
FF_DIM = 1024
MAX_SEQ_LEN = 256
NGRAMS = 4
NGRAM_DROPOUT = 0.5
EPOCHS = 0.0
MAX_STEPS = 250
BATCH_SIZE = 64
EVAL_EVERY = 25
CHECKPOINT_EVERY = 250
SNAPSHOTS = False
