"""The machine: devices, precision, cores, memory, a compiler. Asks `devices` what a training would ask."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from microformer import devices
from microformer.pipeline.doctor import here
from microformer.pipeline.doctor.findings import Around, Finding, mend, note, ok, size
from microformer.settings import Settings, model_spec

# What Python, torch and the default training take together, with some room.
_MEMORY = 1_000_000_000
# Two roads to the same sum differ by the order of its terms, and a GPU's are other than the CPU's.
_ROUNDING = 1e-3
_COMPILERS = ("g++", "clang++", "c++", "cl")


def device(around: Around) -> Iterator[Finding]:
    """What there is to compute on, and whether it computes what the CPU does."""
    machine = devices.Machine()
    found = machine.accelerators()
    for one in found:
        difference = _difference(one)
        room = ""
        if one == "cuda":
            import torch

            free, whole = torch.cuda.mem_get_info()
            room = f", {size(free)} of {size(whole)} free"
        said = f"{one}: {machine.name(one)}{room}"
        if difference <= _ROUNDING:
            yield ok(f"{said}; it computes what the CPU does (within {difference:.0e})")
        else:
            yield mend(
                f"{said}; its logits are {difference:.2g} away from the CPU's.",
                'set DEVICE = "cpu" until its driver and torch go together.',
            )
    if not found:
        yield _without_accelerator(machine)


def precision(around: Around) -> Iterator[Finding]:
    """What a training here would take, and why."""
    compute = chosen_here(here.settings_here(around))
    if "failed at the probe" in compute.reason:
        yield mend(compute.reason, 'set DEVICE = "cpu", or free the memory of the GPU: other programs may have it.')
    else:
        yield ok(compute.reason)


def chosen_here(chosen: Settings) -> devices.Compute:
    """What a training with these settings would compute with; nothing is remembered of what is timed.

    Raises:
        SettingsError: they name what is not here.
    """
    machine = chosen.machine
    return devices.choose(
        machine.device,
        machine.precision,
        0 if machine.threads == "auto" else int(machine.threads),
        width=chosen.model.embed_dim,
        tokens=chosen.training.batch_size * chosen.model.max_seq_len,
        remember=False,
    )


def cores(around: Around) -> Iterator[Finding]:
    """How many cores a training may keep busy, what holds it back, and what else is busy."""
    usable, there = devices.usable_cores(), os.cpu_count() or 1
    limit, without = os.environ.get("OMP_NUM_THREADS", ""), _without_limit()
    if without > usable:
        yield note(
            f"OMP_NUM_THREADS={limit} leaves {usable} of {without} to compute on.", "unset it, unless you mean it."
        )
    else:
        yield ok(f"{usable} to compute on; the system counts {there}")
    if hasattr(os, "getloadavg") and (busy := os.getloadavg()[0]) > there + 0.5:
        yield note(
            f"in the last minute {busy:.1f} threads wanted these {there}.",
            "other programs are at work: a training beside them is slower.",
        )


def memory(around: Around) -> Iterator[Finding]:
    """What is left of the memory."""
    left = devices.memory_available()
    if left is None:
        yield ok("the system doesn't say how much is free")
    elif left < _MEMORY:
        yield mend(
            f"{size(left)} free, and a training with the defaults takes nearly {size(_MEMORY)}.",
            "close other programs, or raise the container's limit.",
        )
    else:
        yield ok(f"{size(left)} free")


def compiler(around: Around) -> Iterator[Finding]:
    """Whether torch can compile here, which `--compile` wants and nothing else does."""
    import torch

    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else [one for one in _COMPILERS if shutil.which(one)]
    if not compilers:
        yield ok("no C++ compiler is here, and none is needed: with --compile it would run as it is")
        return
    began = time.perf_counter()

    def work(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() + x.cos()).relu() * 2

    x = torch.linspace(-3, 3, 1000)
    try:
        right = torch.allclose(torch.compile(work, dynamic=False, fullgraph=True)(x), work(x), atol=1e-5)
    except Exception as error:  # torch raises what its many parts, the compiler or the system do
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")
        yield note(
            f"{compilers[0]} is here, and torch can't compile with it: {reason[:200]}.",
            "nothing needs it; without --compile all runs as it is.",
        )
        return
    if right:
        yield ok(f"torch compiles with {Path(compilers[0]).name}: {time.perf_counter() - began:.0f} s for a few lines")
    else:
        yield mend(
            f"what torch compiles with {compilers[0]} gives other numbers.", "leave COMPILE and --compile alone here."
        )


def _difference(one: str) -> float:
    """The largest difference between the logits of the default model on a device and on the CPU, in float32; they are
    of size 1."""
    import torch

    from microformer.models.model import Microformer

    model = Microformer(model_spec(Settings().changed({"init": "scaled"}), vocab_size=65), seed=1).eval()
    ids = torch.randint(65, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.nn.init.normal_(model.unembed.weight, std=0.1, generator=torch.Generator().manual_seed(1))
        on_cpu = model(ids).logits
        there = model.to(one)(ids.to(one)).logits.cpu()
    return float((on_cpu - there).abs().max() / on_cpu.abs().max().clamp_min(1.0))


def _without_accelerator(machine: devices.Machine) -> Finding:
    import torch

    said = f"the CPU alone: {machine.name('cpu')}"
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia/version").exists():
        return ok(said)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return note(f"{said}; CUDA_VISIBLE_DEVICES hides the GPU.", "unset it, unless you mean it.")
    if torch.version.cuda is None:
        return note(
            f"{said}; an NVIDIA driver is here, and this torch is built for the CPU.",
            "for the GPU install another: https://pytorch.org/get-started has the line.",
        )
    return note(
        f"{said}; an NVIDIA driver is here, and torch, built for CUDA {torch.version.cuda}, finds no GPU it can use.",
        "see what nvidia-smi says; the driver may be older than that CUDA.",
    )


def _without_limit() -> int:
    """The cores that could be used if OMP_NUM_THREADS said nothing."""
    before = os.environ.pop("OMP_NUM_THREADS", None)
    try:
        return devices.usable_cores()
    finally:
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
