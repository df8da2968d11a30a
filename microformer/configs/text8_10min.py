"""Ten minutes on two cores for text8's head (its first 6.9 MB, 90/5/5): below what a table of 7-grams makes of it.

Longer n-grams have embeddings than elsewhere, for at this size of text a table of what came after what is a strong
opponent. The figures are of this prefix alone, and no figures of text8.
"""

CORPUS = "text8"
MAX_BYTES = 6_877_825
VAL_FRACTION = 0.05
TEST_FRACTION = 0.05
NUM_LAYERS = 4
MAX_SEQ_LEN = 256
BATCH_SIZE = 16
NGRAMS = 6
NGRAM_ENTRIES = 65536
NGRAM_DROPOUT = 0.3
EPOCHS = 0.0
MAX_MINUTES = 10.0
EVAL_EVERY = 1000
PATIENCE = 0
SNAPSHOTS = False
