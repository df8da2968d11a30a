"""nanoGPT's setting for Tiny Shakespeare on a GPU (its config/train_shakespeare_char.py): 10.7 million parameters.

GPT-2's blocks with the exact GELU and without biases. For a CPU it is large: see shakespeare_3min for a better loss in
less time.
"""

EMBED_DIM = 384
NUM_HEADS = 6
NUM_LAYERS = 6
FF_DIM = 1536
MAX_SEQ_LEN = 256
POSITIONS = "learned"
FEEDFORWARD = "gelu"
NORM = "layernorm"
QK_NORM = False
TIE_EMBEDDINGS = True
INIT = "scaled"
DROPOUT = 0.2
ATTENTION_DROPOUT = 0.2
EPOCHS = 0.0
MAX_STEPS = 5000
BATCH_SIZE = 64
OPTIMIZER = "adamw"
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
BETA_2 = 0.99
WARMUP = 100
FINAL_RATE = 0.1
EVAL_EVERY = 250
PATIENCE = 0
