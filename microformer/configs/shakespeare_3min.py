"""Three minutes on two cores: the best this machine makes of Tiny Shakespeare in that time."""

NUM_LAYERS = 3
MAX_SEQ_LEN = 256
BATCH_SIZE = 16
NGRAMS = 4
NGRAM_DROPOUT = 0.5
EPOCHS = 0.0
MAX_MINUTES = 3.0
SNAPSHOTS = False
