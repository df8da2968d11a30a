"""minGPT's gpt-mini with the training of its projects/chargpt: 6 layers, 192 wide.

GPT-2's blocks, with a matrix of its own for the unembedding and a rate that never falls.
"""

EMBED_DIM = 192
NUM_HEADS = 6
NUM_LAYERS = 6
FF_DIM = 768
MAX_SEQ_LEN = 128
POSITIONS = "learned"
FEEDFORWARD = "gelu_tanh"
NORM = "layernorm"
QK_NORM = False
BIAS = True
INIT = "scaled"
DROPOUT = 0.1
ATTENTION_DROPOUT = 0.1
BATCH_SIZE = 64
OPTIMIZER = "adamw"
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 0.1
SCHEDULE = "constant"
WARMUP = 0.0
