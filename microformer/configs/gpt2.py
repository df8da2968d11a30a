"""GPT-2's smallest, as published: 124,439,808 parameters with its own vocabulary (TOKENIZER = a folder that holds it).

Radford et al. 2019, section 2.3: as GPT-1, but norms before each half of a block and one at the end, and what writes to
the stream begins smaller. The paper is silent on rates: these are GPT-3's for this size (Brown et al. 2020, table 2.1
and appendix B).
"""

EMBED_DIM = 768
NUM_HEADS = 12
NUM_LAYERS = 12
FF_DIM = 3072
MAX_SEQ_LEN = 1024
POSITIONS = "learned"
FEEDFORWARD = "gelu_tanh"
NORM = "layernorm"
QK_NORM = False
TIE_EMBEDDINGS = True
BIAS = True
INIT = "scaled"
DROPOUT = 0.1
ATTENTION_DROPOUT = 0.1
TOKENIZER = "bpe"
EPOCHS = 1.0
BATCH_SIZE = 512
ACCUMULATE = 64
OPTIMIZER = "adamw"
LEARNING_RATE = 6e-4
WEIGHT_DECAY = 0.1
WARMUP = 715
FINAL_RATE = 0.1
