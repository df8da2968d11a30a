"""Which device, precision and number of threads the work is done with, and how much memory there is for it.

Capability first: what a machine has no units for is not tried. Then a short timed probe on work shaped like the
model, and it must win by a margin: a tiny model is often faster on the CPU than on a GPU, and bfloat16 is not faster
everywhere it exists. What was timed is kept in the user's cache, so that two starts choose alike. Knows nothing of
models, settings or training; imports torch only when asked something.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microformer import files
from microformer.errors import FileError, SettingsError, nearest, notice

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")

SPINS = "5000"  # how often a waiting thread looks before it sleeps: see `share_cores`
MARGIN = 1.3  # how many times faster the less usual choice must be before it is taken
_MOST_THREADS = 1024
# How often a surprising verdict is timed again, the shortest time of each case counting, before it is believed.
_SECOND_LOOKS = 2
# Where a pass takes less than these, waking a second thread for each of its operations takes longer than they do.
_FEW_OPERATIONS = 2e7
_PROBE_SECONDS = 0.12  # for all cases together; warm-up comes on top
# The most that one timed pass computes: some milliseconds either way, and enough to fill a GPU.
_PROBE_FLOPS = {"cpu": 1.6e9, "cuda": 5e10, "mps": 5e10}
_PROBE_WIDTH = {"cpu": 256, "cuda": 1024, "mps": 1024}
_ONE_AT_A_TIME = threading.Lock()  # a thread that begins asks what the last one said
_PROC = Path("/proc")
_SYS = Path("/sys")

Case = tuple[str, str]  # a device and a precision that could do the work


@dataclass(frozen=True)
class Compute:
    """How the work is done: `choose` makes one, `use` puts it into force.

    Attributes:
        device: "cpu", "cuda" or "mps".
        precision: "float32" or "bfloat16", that of the matrix products; weights are the caller's affair.
        threads: how many CPU threads one operation may use.
        reason: one line for the log, such as "cpu, bfloat16 (2.9 x float32 here), 2 threads".
    """

    device: str
    precision: str
    threads: int
    reason: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision as torch spells it."""
        import torch

        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


class Machine:
    """What `choose` asks of the machine it runs on: what is there, and how long the work takes on it.

    A test hands in another machine by overriding these methods.
    """

    def accelerators(self) -> list[str]:
        """The devices beside the CPU that torch can use here, the better first: of "cuda" and "mps"."""
        import torch

        found = ["cuda"] if torch.cuda.is_available() else []
        return [*found, "mps"] if torch.backends.mps.is_available() else found

    def name(self, device: str) -> str:
        """The maker's name of a device, such as "AMD EPYC" or "NVIDIA H200"."""
        import torch

        return torch.cuda.get_device_name() if device == "cuda" else cpu_name()

    def has_bfloat16(self, device: str) -> bool:
        """Whether a device has units of its own for bfloat16 products, not an imitation (a T4 imitates)."""
        match device:
            case "cpu":
                return _cpu_has_bfloat16()
            case "cuda":
                return _cuda_has_bfloat16()
            case _:
                # On Apple's GPUs bfloat16 depends on the system's version and gains little: never by itself.
                return False

    def cores(self) -> int:
        """How many threads are worth starting: see `usable_cores`."""
        return usable_cores()

    def seconds(self, cases: Sequence[Case], threads: int, width: int, tokens: int) -> list[float]:
        """How long a pass of the probe's work takes in each case; infinite where it can't be done at all."""
        return _time_cases(cases, threads, width, tokens)


def choose(
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    *,
    width: int = 128,
    tokens: int = 4096,
    machine: Machine | None = None,
    remember: bool = True,
) -> Compute:
    """Chooses what is left open (`"auto"`, 0 threads) and checks what is not.

    An accelerator is taken unless the CPU does the same work at least 1.3 times faster; bfloat16 is taken where the
    device has units for it and it is at least 1.3 times faster than float32. The first choice of its kind on a
    machine times this (0.3 s at most, beside a GPU's own start); later ones read the figures from the cache.
    torch's random state and its number of threads are left as they were.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "float32" or "bfloat16"; bfloat16 may be asked for where it is only imitated.
        threads: CPU threads; 0 for the cores that this process may use, or one where there is too little to share.
        width: the model's width (d_model): the probe's products have its shape, rounded to a power of two.
        tokens: tokens a step, likewise.
        machine: what to ask about the machine; this one if left out.
        remember: whether what is timed is kept in the cache.

    Raises:
        SettingsError: a word that is none of these, a device that is not here, an impossible number of threads.
    """
    machine = machine or Machine()
    _check_word("DEVICE", device, DEVICES)
    _check_word("PRECISION", precision, PRECISIONS)
    accelerators = machine.accelerators() if device != "cpu" else []
    _check_device(device, accelerators)
    threads = _checked_threads(threads) or usual_threads(width, tokens, machine.cores())

    devices = ["cpu", *accelerators[:1]] if device == "auto" else [device]
    native = {each: machine.has_bfloat16(each) for each in devices}
    cases = [(each, kind) for each in devices for kind in _candidates(precision, native[each])]
    seconds = _remembered(machine, cases, threads, width, tokens, remember) if len(cases) > 1 else {}

    chosen = {each: _faster_precision(precision, native[each], each, seconds) for each in devices}
    best, why_device = _faster_device(
        device, machine, {each: seconds.get((each, chosen[each][0]), 0.0) for each in devices}
    )
    best_precision, why_precision = chosen[best]
    reason = f"{best}{why_device}, {best_precision}{why_precision}, {threads} thread{'s' if threads > 1 else ''}"
    return Compute(best, best_precision, threads, reason)


def usual_threads(width: int, tokens: int, cores: int) -> int:
    """The threads of a training that is not told: the cores there are for it, or one where there is little to share.

    Args:
        width, tokens: as for `choose`.
        cores: how many it may keep busy.
    """
    return 1 if tokens * width**2 < _FEW_OPERATIONS / 10 else cores


def use(compute: Compute) -> None:
    """Puts a choice into force for this process.

    Sets torch's number of threads, and on Linux lets the process keep the memory that it frees. On CUDA it also says
    what happens to the products that stay in float32: beside bfloat16 they may use TF32 (10 bits of mantissa, still
    finer than bfloat16's 7); in a float32 run they stay exact.
    """
    import torch

    torch.set_num_threads(compute.threads)
    _keep_freed_memory()
    if compute.device == "cuda":
        torch.set_float32_matmul_precision("high" if compute.precision == "bfloat16" else "highest")


def compiled(function: Callable, what: str) -> Callable:
    """The function as code compiled for the shapes it is called with, or as it is where that can't be done.

    The first call with new shapes compiles: some ten seconds, or one where the same was compiled before (torch keeps
    what it made in the user's cache). Where there is no compiler, one line says so and the function runs as it is.

    Args:
        function: of tensors, and of whatever else stays the same.
        what: its name to the user, such as "the model".
    """
    attempt = _compiling(function)

    def run(*arguments: object) -> object:
        nonlocal attempt
        if attempt is function:
            return function(*arguments)
        try:
            return attempt(*arguments)
        except _compiler_errors() as error:
            _not_compiled(what, error)
            attempt = function
            return function(*arguments)

    return run


def compiled_work(function: Callable[[], object], given: Sequence[torch.Tensor], what: str) -> Callable[[], object]:
    """What does the function's work as compiled code, or as it is where that can't be done.

    The code alone is called, with the tensors that it was compiled for, and nobody asks whether all is still as it was:
    what PyTorch has around it takes as long as a small model's token does.

    Args:
        function: reads and writes the same tensors each time, and nothing else changes.
        given: those that it writes to. What is in them stays.
        what: its name to the user.
    """
    import torch._functorch.config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    made: dict[str, Any] = {}

    def compile_and_keep(graph: Any, inputs: Any, **options: Any) -> Any:
        code: Any = compile_fx_inner(graph, inputs, **options)
        code = getattr(code, "current_callable", None) or code  # older versions of PyTorch give it bare

        def first(tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
            made.update(code=code, tensors=list(tensors))
            return code(tensors)

        first._boxed_call = True  # type: ignore[attr-defined]  # it is given its tensors in a list
        return first

    def inductor(graph: Any, inputs: Any) -> Any:
        # With the calls between its pieces compiled too, a small model's token takes a fifth less time.
        patches = {"size_asserts": False, "cpp_wrapper": True}
        # What PyTorch keeps between processes has the code inside what is around it, and would give it so.
        with torch._functorch.config.patch(enable_autograd_cache=False):
            return compile_fx(graph, inputs, inner_compile=compile_and_keep, config_patches=patches)

    def put(values: Sequence[torch.Tensor]) -> None:
        for one, value in zip(given, values, strict=True):
            one.copy_(value)

    before = [one.clone() for one in given]
    try:
        _compiling(function, backend=inductor)()
    except _compiler_errors() as error:
        _not_compiled(what, error)
        return function
    after = [one.clone() for one in given]
    code, tensors = made["code"], made["tensors"]
    put(before)
    code(list(tensors))
    alone = all(map(torch.equal, given, after))
    put(before)
    if not alone:
        _not_compiled(what, RuntimeError("a part of its work is done outside of the code"))
        return function
    return lambda: code(list(tensors))


def _compiling(function: Callable, **options: Any) -> Callable:
    import torch

    def own(*arguments: object) -> object:
        return function(*arguments)

    # torch keeps what it compiled by the code object: another model's must not be found under this one's.
    own.__code__ = own.__code__.replace()
    return torch.compile(own, dynamic=False, fullgraph=True, **options)


def _compiler_errors() -> tuple[type[Exception], ...]:
    from torch._dynamo import exc

    names = ("TorchDynamoException", "FailOnRecompileLimitHit")  # the second came after PyTorch 2.4
    return tuple(getattr(exc, name) for name in names if hasattr(exc, name))


def _not_compiled(what: str, error: Exception) -> None:
    reason = str(error).strip().splitlines()[0]
    notice(f"{what} can't be compiled here ({reason}); it runs as it is.")


def recorded(function: Callable[..., torch.Tensor], weights: Sequence[torch.Tensor], what: str) -> Callable:
    """The function's work on a CUDA GPU and that of its gradient, recorded once and from then on played back as one.

    Handing a GPU hundreds of small pieces one by one takes the CPU longer than they take the GPU ("CUDA graphs"). What
    is recorded must always be the same work: inputs keep their sizes, and nothing depends on an answer of the GPU's.
    Where that isn't so, one line says it and the function runs as it is.

    The gradients of `weights` are the same memory at each call: they must be used before the next one.

    Args:
        function: of tensors, or None where there are none, in the same places at each call; gives one number.
        weights: all that its gradient is wanted of.
        what: its name to the user, such as "the model".
    """
    import torch

    class Work(torch.nn.Module):
        """The function as PyTorch's recorder wants it: a module that has the weights, and is called with tensors."""

        def __init__(self, filled: Sequence[bool]):
            super().__init__()
            self.weights, self.filled = torch.nn.ParameterList(weights), filled

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            left = iter(given)
            return function(*[next(left) if filled else None for filled in self.filled])

    played: Callable | None = None

    def run(*arguments: torch.Tensor | None) -> torch.Tensor:
        nonlocal played
        given = tuple(one for one in arguments if one is not None)
        if played is None:
            work = played = Work([one is not None for one in arguments])
            # The trials draw random numbers, which the training must not miss.
            with torch.random.fork_rng([torch.cuda.current_device()]):
                try:
                    _ask_nothing(lambda: torch.autograd.grad(work(*given), list(weights), allow_unused=True))
                    inputs = tuple(one.clone() for one in given)
                    played = torch.cuda.make_graphed_callables(work, inputs, allow_unused_input=True)
                except RuntimeError as error:
                    if out_of_memory(error):
                        raise
                    reason = str(error).strip().splitlines()[0]
                    notice(f"{what} can't be recorded here ({reason}); it runs as it is.")
        return played(*given)

    return run


def _ask_nothing(work: Callable[[], object]) -> None:
    """Raises RuntimeError where work waits for an answer of the GPU's. Recording would find it too, and leave torch's
    random generator unusable."""
    import torch

    work()  # what is compiled or looked up the first time may ask
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says once that this is new
        torch.cuda.set_sync_debug_mode("error")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    # The recorded gradient comes from a stream of its own; PyTorch 2.9 and later warn of it at the first step.
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)


def share_cores() -> None:
    """Lets the threads of torch's operations wait for one another only briefly before they sleep.

    GNU's OpenMP has them wait awake for milliseconds. Where another program takes one of the cores, however small, each
    operation then lasts until the system takes turns, and a step several times as long. Some microseconds of waiting
    cost an idle machine nothing. To be called before torch is first imported; what the user has set stands.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


@contextmanager
def threads_for(operations: int | float) -> Iterator[None]:
    """While inside, an operation uses one thread if there is little to do.

    Args:
        operations: multiplications between two points where threads must meet, such as those of one token's pass.
    """
    import torch

    before = torch.get_num_threads()
    if operations < _FEW_OPERATIONS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_here() -> None:
    """Has torch's operations use one thread where they are called from this thread of Python; others keep theirs.

    For what works beside a training in the same process. Each thread that calls operations has threads of OpenMP of its
    own, and GNU's, where there are more of them than cores, have every thread of the process go to sleep at each
    meeting, idle ones or not: one operation elsewhere made the training's steps 1.6 times as long, to its end.
    """
    import torch

    with _ONE_AT_A_TIME:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        # That was also said for threads that are yet to begin, and another can take it back without a change here.
        elsewhere = threading.Thread(target=torch.set_num_threads, args=(threads,))
        elsewhere.start()
        elsewhere.join()


def give_back_freed_memory() -> None:
    """Hands to the system what was freed and kept for another time: see `use`."""
    if (heap := _glibc()) is not None:
        heap.malloc_trim(0)


def _keep_freed_memory() -> None:
    # glibc hands a large buffer back to the system when it is freed, and every step then faults its pages in anew: a
    # sixth of the default model's step. With other C libraries there is nothing to set.
    if (heap := _glibc()) is not None:
        trim_threshold, mmap_threshold = -1, -3  # as <malloc.h> numbers them; 32 MiB is the most of the second
        heap.mallopt(trim_threshold, 2**31 - 1)
        heap.mallopt(mmap_threshold, 32 * 2**20)


def _glibc() -> ctypes.CDLL | None:
    on_linux = sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if on_linux else None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU, in any of the ways that torch says it."""
    import torch

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # The CPU's allocator has no error class of its own. It says "can't allocate memory", or "not enough memory" on
    # Windows, always after its name.
    said = str(error)
    signs = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in said for sign in signs)


def memory_available() -> int | None:
    """How many bytes this process can still take without swapping, or None where the system doesn't say.

    The smaller of the machine's free memory and of what a container's limit leaves. The GPU's memory is not meant.
    """
    amounts = [_container_memory()]
    for line in _lines(_PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            amounts.append(int(line.split()[1]) * 1024)
    if len(amounts) == 1 and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        amounts.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((amount for amount in amounts if amount is not None), default=None)


def peak_memory(device: str = "cpu") -> int | None:
    """The most bytes that this process has held at once, or None where the system doesn't say.

    Of a CUDA GPU's memory what torch's tensors took there, where that is the device: it is what a training runs out of.
    Else of the machine's own memory, the interpreter and torch itself (some 300 MB) included.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return _peak_working_set()
    for line in _lines(_PROC / "self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def usable_cores() -> int:
    """The number of cores that this process may keep busy.

    On Linux: the physical cores among the CPUs it is pinned to (two hyper-threads share one core's arithmetic), but
    no more than a container's quota. Elsewhere torch's own default. OMP_NUM_THREADS, if set, is a further limit.
    """
    cores = _pinned_cores()
    if cores is None:
        import torch

        cores = torch.get_num_threads()
    limits = [cores, _container_cores(), _omp_threads()]
    return max(1, min(limit for limit in limits if limit is not None))


# What is asked for, checked


def _check_word(setting: str, word: str, known: Sequence[str]) -> None:
    if word in known:
        return
    listed = ", ".join(known[:-1]) + " or " + known[-1]
    hint = f"use {listed}."
    if isinstance(word, str) and word.startswith("cuda:"):
        hint = f"use cuda, and name the GPU outside: CUDA_VISIBLE_DEVICES={word[5:]}."
    elif isinstance(word, str) and (near := nearest(word.lower(), known)):
        hint = f"did you mean {near}? There are {listed}."
    raise SettingsError(f"{setting} can't be {word!r}.", hint)


def _check_device(device: str, accelerators: Sequence[str]) -> None:
    if device in ("auto", "cpu") or device in accelerators:
        return
    what = "NVIDIA GPU" if device == "cuda" else "Apple GPU"
    others = "".join(f", or {each}, which is here" for each in accelerators)
    raise SettingsError(
        f"DEVICE is {device}, but torch finds no {what} here.",
        f"use auto or cpu{others}; a GPU that should be found needs its driver and a torch built for it.",
    )


def _checked_threads(threads: int) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool) or not 0 <= threads <= _MOST_THREADS:
        raise SettingsError(
            f"THREADS can't be {threads!r}.",
            f"use auto, for the cores that are here, or a whole number up to {_MOST_THREADS}.",
        )
    return threads


# The verdicts: pure functions of the figures


def _candidates(precision: str, native: bool) -> list[str]:
    if precision != "auto":
        return [precision]
    return ["float32", "bfloat16"] if native else ["float32"]


def _faster_precision(asked: str, native: bool, device: str, seconds: Mapping[Case, float]) -> tuple[str, str]:
    """The precision for one device, and why, in brackets."""
    if asked != "auto":
        imitated = asked == "bfloat16" and not native
        return asked, " (as asked; it has no units for it)" if imitated else " (as asked)"
    if not native:
        return "float32", "" if device == "mps" else " (no bfloat16 units here)"
    ratio = _ratio(seconds[device, "float32"], seconds[device, "bfloat16"])
    if ratio >= MARGIN:
        return "bfloat16", f" ({_times(ratio)} x float32 here)"
    return "float32", f" (bfloat16 only {_times(ratio)} x as fast here)"


def _faster_device(asked: str, machine: Machine, seconds: Mapping[str, float]) -> tuple[str, str]:
    """The device, and why, in brackets; `seconds` has each device's time in its own precision."""
    *_, other = seconds
    if other == "cpu":
        return "cpu", ""
    name = machine.name(other)
    if asked != "auto":
        return other, f" ({name}, as asked)"
    if math.isinf(seconds[other]):
        return "cpu", f" ({other} failed at the probe: {name})"
    ratio = _ratio(seconds[other], seconds["cpu"])
    if ratio >= MARGIN:
        return "cpu", f" ({_times(ratio)} x {other} here)"
    return other, f" ({name}, {_times(1 / ratio)} x cpu here)"


def _ratio(slow: float, fast: float) -> float:
    # Neither can be done at all: no reason to leave the usual.
    return 1.0 if math.isinf(slow) and math.isinf(fast) else slow / fast


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


# The figures: timed once, then remembered


def _remembered(
    machine: Machine, cases: Sequence[Case], threads: int, width: int, tokens: int, remember: bool
) -> dict[Case, float]:
    """The seconds of each case, from the cache or else timed now."""
    import torch

    width, tokens = _bucket(width), _bucket(tokens)
    names = sorted({f"{device} {machine.name(device)}" for device, _ in cases})
    spelled = [f"{device} {precision}" for device, precision in cases]
    # All the cases of a line were timed together, turn by turn, so that their ratios hold on a busy machine too.
    key = " | ".join(
        [*names, f"torch {torch.__version__}", f"{threads} threads", f"width {width}", f"{tokens} tokens", *spelled]
    )
    path = files.cache_folder() / "probe.json"
    if (known := _known_figures(path).get(key)) is not None and set(known) == set(spelled):
        return {case: known[word] for case, word in zip(cases, spelled, strict=True)}
    timed = machine.seconds(cases, threads, width, tokens)
    for _ in range(_SECOND_LOOKS):
        if not _surprising(dict(zip(cases, timed, strict=True))):
            break
        timed = [min(pair) for pair in zip(timed, machine.seconds(cases, threads, width, tokens), strict=True)]
    if remember and all(math.isfinite(figure) for figure in timed):
        _remember(path, key, dict(zip(spelled, timed, strict=True)))
    return dict(zip(cases, timed, strict=True))


def _surprising(seconds: Mapping[Case, float]) -> bool:
    """Whether units for bfloat16 seem to bring little, as they do where another program took the cores meanwhile."""
    return any(
        kind == "bfloat16" and _ratio(seconds.get((device, "float32"), math.inf), figure) < MARGIN
        for (device, kind), figure in seconds.items()
    )


def _bucket(size: int) -> int:
    """The power of two nearest to a size, on the scale of ratios."""
    return 2 ** round(math.log2(max(1, size)))


def _known_figures(path: Path) -> dict[str, dict[str, float]]:
    """What the cache holds that can be believed."""
    try:
        read = files.read_json(path)
    except FileError:
        # Not there yet, unreadable or damaged: what it held is timed again.
        return {}
    if not isinstance(read, dict):
        return {}
    return {
        key: entry
        for key, entry in read.items()
        if isinstance(entry, dict)
        and all(isinstance(figure, float) and 0 < figure < math.inf for figure in entry.values())
    }


def _remember(path: Path, key: str, figures: dict[str, float]) -> None:
    try:
        files.write_json(path, {**_known_figures(path), key: figures})
    except FileError:
        # A cache that can't be written costs the next start a fraction of a second, no more.
        return


def _time_cases(cases: Sequence[Case], threads: int, width: int, tokens: int) -> list[float]:
    """The seconds a feed-forward layer of this size takes in each case, forward and backward.

    The shortest of several passes, the cases taking turns. A large layer is timed on a smaller one and scaled by the
    number of operations.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        passes, scales = [], []
        for device, precision in cases:
            timed_width = min(width, _PROBE_WIDTH[device])
            timed_tokens = min(tokens, int(_PROBE_FLOPS[device] / _flops(timed_width, 1)))
            passes.append(_warm(_layer_pass(device, precision, timed_width, timed_tokens)))
            scales.append(_flops(width, tokens) / _flops(timed_width, timed_tokens))
        best = [math.inf] * len(cases)
        started = time.perf_counter()
        rounds = 0
        while rounds < 2 or time.perf_counter() - started < _PROBE_SECONDS:
            for index, run in enumerate(passes):
                if run is not None:
                    begun = time.perf_counter()
                    run()
                    best[index] = min(best[index], time.perf_counter() - begun)
            rounds += 1
    finally:
        torch.set_num_threads(before)
    return [shortest * scale for shortest, scale in zip(best, scales, strict=True)]


def _flops(width: int, tokens: int) -> float:
    # 8 width² weights, each used twice forward and four times backward for every token.
    return 48.0 * width * width * tokens


def _warm(run: Callable[[], None]) -> Callable[[], None] | None:
    """The pass, run once; None where the device refuses it."""
    try:
        run()
    except RuntimeError:
        # A GPU that this build of torch has no kernels for, or whose memory somebody else has filled.
        return None
    return run


def _layer_pass(device: str, precision: str, width: int, tokens: int) -> Callable[[], None]:
    """Forward and backward through a feed-forward layer whose weights are kept in float32."""
    import torch

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    generator = torch.Generator().manual_seed(0)  # one of its own: the global one is not touched

    def random(*shape: int) -> torch.Tensor:
        return (0.1 * torch.randn(*shape, generator=generator)).to(device).requires_grad_()

    def run() -> None:
        if not leaves:
            leaves.extend([random(tokens, width), random(width, 4 * width), random(4 * width, width)])
        x, w_in, w_out = (leaf.to(dtype) for leaf in leaves)
        loss = (torch.relu(x @ w_in).square() @ w_out).float().square().mean()
        torch.autograd.grad(loss, leaves)
        if device == "cuda":
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()

    leaves: list[torch.Tensor] = []  # filled by the first pass, so that a device that refuses does so there
    return run


# What the machine is


def cpu_name() -> str:
    """The processor, as the system calls it."""
    for line in _lines(_PROC / "cpuinfo"):
        if line.startswith(("model name", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "cpu"


def _cpu_has_bfloat16() -> bool:
    import torch

    units = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
    # Where torch can say, it knows more systems than /proc; older ones can't.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if any(capabilities.get(unit) for unit in units):
        return True
    return any(
        not set(units).isdisjoint(line.partition(":")[2].split())
        for line in _lines(_PROC / "cpuinfo")
        if line.startswith(("flags", "Features"))
    )


def _cuda_has_bfloat16() -> bool:
    import torch

    try:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    except TypeError:
        # Older torch doesn't tell units from imitation: they came with compute capability 8.
        return torch.cuda.get_device_capability() >= (8, 0)


def _pinned_cores() -> int | None:
    """The distinct physical cores behind the CPUs that this process may run on; None where it can't be read."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    topology = [
        _lines(_SYS / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in os.sched_getaffinity(0)
    ]
    return len({tuple(lines) for lines in topology}) if all(topology) else None


def _omp_threads() -> int | None:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _container_cores() -> int | None:
    """What the tightest CPU quota around this process comes to, in whole cores."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        match _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"):
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:
                # Rounded down: a thread too many is held back by the system just when the others wait for it.
                quotas.append(max(1, int(quota) // int(period)))
    return min(quotas, default=None)


def _container_memory() -> int | None:
    """What the tightest memory limit around this process leaves, in bytes; cached files count as free."""
    left = []
    for folder in _cgroup_folders("memory"):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            match _words(folder / limit) + _words(folder / used):
                case [most, now] if most.isdecimal() and now.isdecimal():
                    freed = [
                        line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{cached} ")
                    ]
                    left.append(max(0, int(most) - int(now) + sum(map(int, freed))))
    return min(left, default=None)


def _peak_working_set() -> int | None:
    """What Windows calls the peak working set of this process, in bytes."""

    class Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = [
            ("size", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            *(
                (name, ctypes.c_size_t)
                for name in ("peak", "now", "pool_peak", "pool", "other_peak", "other", "a", "b")
            ),
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32")  # pyright: ignore[reportAttributeAccessIssue] (Windows has it)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    done = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return counters.peak if done else None


def _cgroup_folders(controller: str) -> list[Path]:
    """The folders of the control groups that this process is in, from its own up to the root, both versions."""
    folders = []
    for line in _lines(_PROC / "self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            root = _SYS / "fs/cgroup"
        elif controller in names.split(","):
            root = _SYS / "fs/cgroup" / controller
        else:
            continue
        # Inside a container the path may be the host's: its folders are not there, and the root's file counts.
        own = root / path.strip("/")
        folders += [own, *(parent for parent in own.parents if parent == root or root in parent.parents)]
    return folders


def _lines(path: Path) -> list[str]:
    """The lines of one of the system's own files; none where it doesn't exist or can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
