"""Llama's smallest, as published: 6,738,415,616 parameters with its own vocabulary of 32,000.

Touvron et al. 2023, section 2: GPT-2's blocks with rotary positions, RMSNorm, SwiGLU, no biases and a matrix of its own
for the unembedding. A shape to begin from: --embed-dim 256 --num-heads 4 --num-layers 4 --ff-dim 688.
"""

EMBED_DIM = 4096
NUM_HEADS = 32
NUM_LAYERS = 32
FF_DIM = 11008
MAX_SEQ_LEN = 2048
QK_NORM = False
INIT = "normal"
TOKENIZER = "bpe"
EPOCHS = 1.0
BATCH_SIZE = 2048
ACCUMULATE = 1024
OPTIMIZER = "adamw"
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.1
WARMUP = 2000
FINAL_RATE = 0.1
