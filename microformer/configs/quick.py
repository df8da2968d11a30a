"""A small model that has learned to spell within about ten seconds on a laptop: to see that everything works."""

EMBED_DIM = 64
FF_DIM = 128
MAX_SEQ_LEN = 64
EPOCHS = 2.0
