"""GPT-1 as published: 116,534,784 parameters with its own vocabulary of 40,478 (TOKENIZER = a folder that holds it).

Radford et al. 2018, section 4.1: norms after each half of a block and none at the end, learned positions, GELU's tanh
form, one matrix for embedding and unembedding, Adam to 2.5e-4 in 2,000 steps and by a cosine to 0.
"""

EMBED_DIM = 768
NUM_HEADS = 12
NUM_LAYERS = 12
FF_DIM = 3072
MAX_SEQ_LEN = 512
POSITIONS = "learned"
FEEDFORWARD = "gelu_tanh"
NORM = "layernorm"
NORM_PLACEMENT = "post"
QK_NORM = False
TIE_EMBEDDINGS = True
BIAS = True
INIT = "normal"
DROPOUT = 0.1
ATTENTION_DROPOUT = 0.1
TOKENIZER = "bpe"
EPOCHS = 100.0
BATCH_SIZE = 64
OPTIMIZER = "adamw"
LEARNING_RATE = 2.5e-4
WEIGHT_DECAY = 0.01
BETA_2 = 0.999
WARMUP = 2000
