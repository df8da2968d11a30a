"""The settings of `microformer train` in this folder. Each can be given on the command line too: --embed-dim 256.

Where a component is named by a word, a class of your own may stand: ATTENTION = "my_attention.py:MyAttention".
"""

# The model
EMBED_DIM = 128  # width of the residual stream
NUM_HEADS = 4  # attention heads a layer; divides EMBED_DIM
NUM_LAYERS = 2  # blocks
FF_DIM = 256  # width of the feed-forward's middle
MAX_SEQ_LEN = 128  # context: how many tokens the model sees at once
VOCAB_SIZE = 100  # Overridden at runtime (read by TOKENIZER bpe, wordpiece, unigram)
ATTENTION = "softmax"  # softmax, window, strided, fixed, sparsemax, entmax15, topk, sigmoid, linear, differential
MEMORY = "none"  # what goes over from segment to segment: none, xl, compressive, recurrent, tokens, knn
NUM_KV_HEADS = "auto"  # heads of keys and values, shared by the heads of queries; auto: NUM_HEADS
SCORE_CAP = 0.0  # attention scores are squeezed between minus and plus this; 0 for no cap
ATTENTION_DROPOUT = 0.0  # share of attention's pattern dropped while training
OUTPUT_GATE = False  # a gate on what attention takes
POSITIONS = "rope"  # rope, learned, sinusoidal, alibi, t5, none
FEEDFORWARD = "swiglu"  # swiglu, geglu, gelu, gelu_tanh, relu, relu2, moe
NORM = "rmsnorm"  # rmsnorm, layernorm
QK_NORM = True  # normalise queries and keys in each head
NORM_PLACEMENT = "pre"  # norms before each half of a block (pre), after it (post), or both (sandwich)
PARALLEL = False  # attention and feed-forward read the same stream and are added to it together
LOOPS = 1  # times the blocks are gone through, with the same weights
RESIDUAL_SCALARS = False  # a learned factor for the stream and one for what is added to it
EMBED_SCALE = 1.0  # what token embeddings are multiplied by (Gemma: the root of EMBED_DIM)
TIE_EMBEDDINGS = False  # one matrix for embedding and unembedding
BIAS = False  # biases in linear maps and LayerNorms
INIT = "zero"  # how weights begin: zero (what writes to the stream at 0), normal (all N(0, 0.02)), scaled (as GPT-2)
DROPOUT = 0.0  # share of activations dropped while training
NGRAMS = 1  # longest n-grams of tokens with embeddings of their own: 1 for none, 2 for pairs, up to 8
NGRAM_ENTRIES = 16384  # most rows of a table of n-grams (only NGRAMS above 1 reads it)
NGRAM_DROPOUT = 0.0  # share of n-grams left out while training (only NGRAMS above 1 reads it)

# The data
CORPUS = "tinyshakespeare"  # a named corpus, a file or a folder; data/corpus.txt comes before the default
ENCODING = "utf-8"  # of the corpus's files
TEXT_FIELD = ""  # which field of a row has the text (.jsonl, .csv, .parquet); empty: text, or the only one
MAX_DOCUMENTS = 0  # most documents that are read; 0 for all
MAX_BYTES = 0  # most bytes of text that are read, from its beginning; 0 for all
TOKENIZER = "char"  # char, byte, bpe, wordpiece, unigram
UNKNOWN = "error"  # characters that a vocabulary which is there already lacks: error, skip, replace (é: e)
DATA_ORDER = "auto"  # shuffled windows, or streams that read on; auto: streams where a memory is carried
VAL_FRACTION = 0.1  # share of the text, at its end, kept for validation; 0 for none
TEST_FRACTION = 0.0  # share of the text, at its very end, kept for a test; 0 for none
WORKERS = "auto"  # processes that encode a long text; auto: as many as there are cores, one for characters and bytes

# The training: what ends it, whichever comes first (0: no such limit)
EPOCHS = 3.0  # times through the training text; may be a fraction
MAX_STEPS = 0  # optimizer steps
MAX_MINUTES = 0.0  # minutes on the clock; the schedule runs over them

# The training: how
BATCH_SIZE = 32  # sequences a step
ACCUMULATE = 1  # parts a batch is computed in, to save memory
OPTIMIZER = "muon"  # muon (matrices; AdamW for the rest), adamw
LEARNING_RATE = "auto"  # highest rate; auto: what suits the optimizer and the width
WEIGHT_DECAY = 0.2  # share of the rate by which matrices and embeddings shrink a step
MOMENTUM = 0.95  # Muon's
BETA_1 = 0.9  # AdamW's memory of gradients
BETA_2 = 0.95  # AdamW's memory of squared gradients
GRAD_CLIP = 1.0  # largest norm of the whole gradient; 0 for no limit
SCHEDULE = "cosine"  # cosine, linear, wsd (warm-up, stable, decay), constant
WARMUP = 0.02  # share of the run in which the rate rises from 0; 1 or more: that many steps
DECAY = 0.4  # share of the run, at its end, in which wsd falls
FINAL_RATE = 0.0  # share of the highest rate that is left at the end
AVERAGING = 0.0  # weight averaging: how much of the average a step keeps, such as 0.99; 0 for none
SEED = 1  # of weights, data order and dropout

# The training: how often
EVAL_EVERY = "auto"  # steps between validations; auto: 16 in a run, fewer where they take long on the clock
PATIENCE = 5  # validations without a better one before training stops; 0 to never stop early
STOP_ON = "loss"  # what PATIENCE looks at: loss, exact_match (a task's; all right ends it too)
CHECKPOINT_EVERY = "auto"  # steps between checkpoints; auto: with each validation
CHECKPOINT_MINUTES = 5.0  # a checkpoint at least this often, in minutes
SNAPSHOTS = True  # keep the weights of steps 1, 2, 4, 8 … (20 at most) to look at later
LOG_EVERY = 10  # steps between lines of metrics.jsonl
PROBE_STEPS = 100  # steps between probes, small pictures of what the model does with one text; 0 for none
TRACKERS = "none"  # who else is shown figures, samples and pictures: tensorboard, wandb, or both with a space
DIAGNOSTICS = False  # look for dead units, collapsed heads and norms out of bounds, and say what layer they are in

# The machine (auto: what it has, or what a short probe finds faster)
DEVICE = "auto"  # cpu, cuda, mps
PRECISION = "auto"  # float32, bfloat16
THREADS = "auto"  # CPU threads
COMPILE = False  # compile the model first: up to a minute, and faster steps; needs a C++ compiler
