"""Device, precision and threads: capability first, a verdict with a margin, the same at every start."""

import contextlib
import errno
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from microformer import devices, files
from microformer.devices import Compute, Machine, choose, memory_available, out_of_memory, usable_cores, use
from microformer.errors import SettingsError


class Pretended(Machine):
    """A machine with made-up parts; `times` are its seconds by case, and `timed` counts how often it was asked."""

    def __init__(self, accelerators=(), bfloat16=(), times=None, cores=4, cpu="Plain CPU"):
        self._accelerators, self._bfloat16, self._cores, self._cpu = list(accelerators), bfloat16, cores, cpu
        self.times = times or {}
        self.timed = 0

    def accelerators(self):
        return self._accelerators

    def name(self, device):
        return {"cpu": self._cpu, "cuda": "Pretended GPU", "mps": "Pretended Apple"}[device]

    def has_bfloat16(self, device):
        return device in self._bfloat16

    def cores(self):
        return self._cores

    def seconds(self, cases, threads, width, tokens):
        self.timed += 1
        return [self.times[case] for case in cases]


def times(cpu32=1.0, cpu16=1.0, cuda32=1.0, cuda16=1.0, mps32=1.0):
    return {
        ("cpu", "float32"): cpu32,
        ("cpu", "bfloat16"): cpu16,
        ("cuda", "float32"): cuda32,
        ("cuda", "bfloat16"): cuda16,
        ("mps", "float32"): mps32,
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "probe.json"


# What is chosen


def test_a_plain_cpu_is_chosen_without_any_timing():
    machine = Pretended()

    assert choose(machine=machine) == Compute("cpu", "float32", 4, "cpu, float32 (no bfloat16 units here), 4 threads")
    assert machine.timed == 0


@pytest.mark.parametrize(
    ("ratio", "precision", "reason"),
    [
        (2.94, "bfloat16", "cpu, bfloat16 (2.9 x float32 here), 2 threads"),
        (1.31, "bfloat16", "cpu, bfloat16 (1.3 x float32 here), 2 threads"),
        (1.29, "float32", "cpu, float32 (bfloat16 only 1.3 x as fast here), 2 threads"),
        (0.5, "float32", "cpu, float32 (bfloat16 only 0.5 x as fast here), 2 threads"),
    ],
)
def test_bfloat16_must_win_by_the_margin(ratio, precision, reason):
    machine = Pretended(bfloat16=["cpu"], times=times(cpu32=ratio), cores=2)

    compute = choose(machine=machine)

    assert (compute.precision, compute.reason) == (precision, reason)


@pytest.mark.parametrize(
    ("accelerator", "seconds", "device"),
    [
        ("cuda", times(cuda32=0.1), "cuda"),
        ("cuda", times(cuda32=1.29), "cuda"),  # slower, but not by enough
        ("cuda", times(cuda32=1.31), "cpu"),
        ("mps", times(mps32=0.5), "mps"),
        ("mps", times(mps32=4.0), "cpu"),
    ],
)
def test_an_accelerator_is_taken_unless_the_cpu_beats_it_by_the_margin(accelerator, seconds, device):
    assert choose(machine=Pretended([accelerator], times=seconds)).device == device


def test_each_device_competes_in_the_precision_that_is_fastest_on_it():
    machine = Pretended(["cuda"], ["cpu", "cuda"], times(cpu32=8.0, cpu16=2.0, cuda32=4.0, cuda16=1.0))

    compute = choose(machine=machine)

    assert (compute.device, compute.precision) == ("cuda", "bfloat16")
    assert compute.reason == "cuda (Pretended GPU, 2.0 x cpu here), bfloat16 (4.0 x float32 here), 4 threads"


def test_a_gpu_that_only_imitates_bfloat16_is_never_given_it():
    machine = Pretended(["cuda"], [], times(cuda32=0.1, cuda16=0.001))

    assert choose(machine=machine).precision == "float32"


def test_an_accelerator_that_fails_at_the_work_is_left_for_the_cpu_and_said_so(cache):
    machine = Pretended(["cuda"], ["cuda"], times(cuda32=math.inf, cuda16=math.inf))

    compute = choose(machine=machine)

    assert compute.device == "cpu"
    assert "cuda failed at the probe" in compute.reason
    assert not cache.exists()  # a memory that was full today may be free tomorrow


def test_what_is_only_to_be_seen_is_not_remembered(cache):
    machine = Pretended(bfloat16=["cpu"], times=times(cpu32=2.0))

    seen = choose(machine=machine, remember=False)

    assert (seen.precision, cache.exists()) == ("bfloat16", False)
    assert choose(machine=machine) == seen
    assert cache.exists()


def test_what_is_asked_for_is_not_second_guessed():
    machine = Pretended(["cuda"], ["cpu", "cuda"], times(cuda32=100.0, cuda16=100.0))

    compute = choose("cuda", "float32", 3, machine=machine)

    assert (compute.device, compute.precision, compute.threads) == ("cuda", "float32", 3)
    assert machine.timed == 0
    assert choose("cpu", "bfloat16", machine=Pretended()).reason == (
        "cpu, bfloat16 (as asked; it has no units for it), 4 threads"
    )


def test_one_thread_is_said_in_the_singular():
    assert choose(threads=1, machine=Pretended()).reason.endswith(", 1 thread")


def test_the_precision_has_its_torch_type():
    assert Compute("cpu", "bfloat16", 1, "").torch_dtype is torch.bfloat16
    assert Compute("cpu", "float32", 1, "").torch_dtype is torch.float32


# What is refused


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"device": "gpu"}, "auto, cpu, cuda or mps"),
        ({"device": "CUDA"}, "did you mean cuda?"),
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES=1"),
        ({"device": "cuda"}, "use auto or cpu"),
        ({"device": "mps"}, "use auto or cpu"),
        ({"precision": "float16"}, "did you mean"),
        ({"precision": "fp8"}, "auto, float32 or bfloat16"),
        ({"threads": -1}, "use auto"),
        ({"threads": 100_000}, "up to 1024"),
    ],
    ids=str,
)
def test_an_impossible_wish_is_refused_with_its_value_and_a_way_out(asked, hint):
    with pytest.raises(SettingsError) as told:
        choose(**asked, machine=Pretended())

    assert str(next(iter(asked.values()))) in told.value.sentence
    assert hint in told.value.hint


def test_a_missing_device_is_told_with_the_one_that_is_here():
    with pytest.raises(SettingsError, match="or cuda, which is here"):
        choose("mps", machine=Pretended(["cuda"]))


# What is remembered


def test_two_starts_choose_alike_even_when_the_second_would_time_otherwise(cache):
    first = choose(machine=Pretended(bfloat16=["cpu"], times=times(cpu32=2.0)))
    slow = Pretended(bfloat16=["cpu"], times=times(cpu16=2.0))

    assert choose(machine=slow) == first
    assert slow.timed == 0
    assert cache.exists()


@pytest.mark.parametrize(
    "other",
    [{"threads": 2}, {"width": 512}, {"tokens": 65536}, {"machine": {"cpu": "Another CPU"}}],
    ids=lambda other: next(iter(other)),
)
def test_other_work_or_another_machine_is_timed_anew(other):
    choose(machine=Pretended(bfloat16=["cpu"], times=times(cpu32=2.0)))
    machine = Pretended(bfloat16=["cpu"], times=times(), **other.get("machine", {}))

    compute = choose(**{**other, "machine": machine})

    assert machine.timed == 3
    assert compute.precision == "float32"


def test_another_torch_is_timed_anew(monkeypatch):
    choose(machine=Pretended(bfloat16=["cpu"], times=times(cpu32=2.0)))
    monkeypatch.setattr(torch, "__version__", "99.0")
    machine = Pretended(bfloat16=["cpu"], times=times())

    choose(machine=machine)

    assert machine.timed == 3


def test_a_busy_moment_does_not_decide_for_good():
    class Busy(Pretended):
        def seconds(self, cases, threads, width, tokens):
            # While another program has the cores, everything takes as long; then the units show.
            self.times = times(cpu32=20.0, cpu16=21.0) if self.timed == 0 else times(cpu32=2.0, cpu16=1.0)
            return super().seconds(cases, threads, width, tokens)

    machine = Busy(bfloat16=["cpu"])

    assert choose(machine=machine).precision == "bfloat16"
    assert machine.timed == 2
    assert choose(machine=Pretended(bfloat16=["cpu"], times=times())).precision == "bfloat16"


def test_nearly_equal_work_shares_a_figure():
    machine = Pretended(bfloat16=["cpu"], times=times(cpu32=2.0))
    for width, tokens in ((128, 4096), (120, 4000), (140, 4608)):
        choose(width=width, tokens=tokens, machine=machine)

    assert machine.timed == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '"x"',
        "null",
        "{}",
        '{"KEY": 1}',
        '{"KEY": {}}',
        '{"KEY": {"cpu float32": "fast"}}',
        '{"KEY": {"cpu float32": 0.0, "cpu bfloat16": -1.0}}',
        '{"KEY": {"cpu float32": NaN, "cpu bfloat16": 1.0}}',
    ],
)
def test_a_damaged_cache_is_timed_again_and_mended(cache, content):
    choose(machine=Pretended(bfloat16=["cpu"], times=times(cpu32=2.0)))
    (key,) = files.read_json(cache)
    cache.write_text(content.replace("KEY", key))
    machine = Pretended(bfloat16=["cpu"], times=times(cpu32=2.0))

    assert choose(machine=machine).precision == "bfloat16"
    assert choose(machine=machine).precision == "bfloat16"
    assert machine.timed == 1


def test_a_cache_that_can_not_be_written_is_no_error(cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    machine = Pretended(bfloat16=["cpu"], times=times(cpu32=2.0))

    assert choose(machine=machine).precision == "bfloat16"
    assert not cache.exists()


def test_the_cache_keeps_what_other_work_measured(cache):
    for width in (64, 128, 256):
        choose(width=width, machine=Pretended(bfloat16=["cpu"], times=times()))

    assert len(files.read_json(cache)) == 3


# The probe itself


@pytest.mark.parametrize(("width", "tokens"), [(1, 1), (32, 64), (128, 4096), (1024, 65536)])
def test_the_probe_leaves_random_numbers_and_threads_as_they_were(width, tokens):
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    figures = Machine().seconds([("cpu", "float32"), ("cpu", "bfloat16")], 1, width, tokens)

    assert all(0 < figure < math.inf for figure in figures)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_device_that_refuses_the_work_takes_for_ever(monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "relu", refused)

    assert Machine().seconds([("cpu", "float32")], 1, 32, 64) == [math.inf]


def test_this_machine_gives_an_answer_and_gives_it_again():
    compute = choose()

    assert compute.device in ("cpu", "cuda", "mps")
    assert compute.precision in ("float32", "bfloat16")
    assert compute.threads >= 1
    assert "\n" not in compute.reason
    assert choose() == compute


def test_using_a_choice_sets_the_threads():
    before = torch.get_num_threads()
    try:
        use(Compute("cpu", "float32", before + 1, ""))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("precision", "products"), [("bfloat16", "high"), ("float32", "highest")])
def test_float32_products_on_cuda_are_rounded_only_beside_bfloat16(precision, products):
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        use(Compute("cuda", precision, threads, ""))
        assert torch.get_float32_matmul_precision() == products
    finally:
        torch.set_float32_matmul_precision(before)


# What a GPU plays back


class Recorder:
    """In the place of CUDA's: remembers what it was given, and refuses what asks the GPU something."""

    def __init__(self, monkeypatch):
        self.refusing, self.recordings, self.played = "default", 0, 0
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: "default")
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(self, "refusing", mode))
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", self.record)

    def record(self, work, inputs, allow_unused_input):
        self.recordings += 1

        def play(*given):
            self.played += 1
            assert [one.shape for one in given] == [one.shape for one in inputs]
            return work(*given)

        return play


def test_what_is_recorded_once_is_played_back_from_then_on(monkeypatch):
    recorder, weight = Recorder(monkeypatch), torch.nn.Parameter(torch.tensor(3.0))
    played = devices.recorded(lambda x, mask: (weight * x).sum() if mask is None else x, [weight], "the work")

    losses = [played(torch.full((2,), float(n)), None) for n in (1, 2, 3)]
    losses[-1].backward()

    assert [loss.item() for loss in losses] == [6.0, 12.0, 18.0]
    assert weight.grad == 6.0
    assert (recorder.recordings, recorder.played) == (1, 3)


def test_what_asks_the_gpu_something_runs_as_it_is(monkeypatch, capsys):
    recorder, weight = Recorder(monkeypatch), torch.nn.Parameter(torch.tensor(3.0))

    def asking(x):
        if recorder.refusing == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return weight * x

    played = devices.recorded(asking, [weight], "the work")

    assert [played(torch.tensor(float(n))).item() for n in (1, 2)] == [3.0, 6.0]
    assert recorder.recordings == 0
    assert recorder.refusing == "default"
    said = capsys.readouterr().err
    assert said.count("the work can't be recorded here (called a synchronizing CUDA operation)") == 1


def test_memory_that_runs_out_while_recording_is_no_reason_to_go_on(monkeypatch):
    Recorder(monkeypatch)
    weight = torch.nn.Parameter(torch.tensor(3.0))

    def full(x):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        devices.recorded(full, [weight], "the work")(weight)


# What the machine can do


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("native", "capability"), [(True, (8, 0)), (False, (7, 5))], ids=["A100", "T4"])
def test_a_t4_has_no_bfloat16_and_an_a100_has(monkeypatch, native, capability, older):
    def now(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", (lambda: True) if older else now)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    assert Machine().has_bfloat16("cuda") is native


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu avx2 amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("bugs\t\t: bf16", False),
    ],
)
def test_older_torch_learns_of_bfloat16_units_from_the_system(tmp_path, monkeypatch, line, native):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n{line}\n")
    monkeypatch.setattr(devices, "_PROC", tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)

    assert Machine().has_bfloat16("cpu") is native
    assert Machine().name("cpu") == "Some CPU @ 2 GHz"


def test_newer_torch_knows_its_units_where_there_is_no_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_PROC", tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "bf16": True}, raising=False)

    assert Machine().has_bfloat16("cpu")
    assert Machine().name("cpu")


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """A made-up Linux of 8 CPUs, two to a core: a function that adds a file to its /proc or /sys."""

    def add(path: str, text: str) -> None:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    for cpu in range(8):
        add(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(devices, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(devices, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return add


def test_two_hyper_threads_count_as_one_core(linux):
    assert usable_cores() == 4


def test_only_the_cpus_this_process_is_pinned_to_count(linux, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6})

    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 4)]
)
def test_a_containers_quota_is_kept_to(linux, quota, cores):
    linux("/proc/self/cgroup", "0::/pod/app\n")
    linux("/sys/fs/cgroup/pod/cpu.max", quota)
    linux("/sys/fs/cgroup/pod/app/cpu.max", "max 100000")

    assert usable_cores() == cores


def test_an_older_containers_quota_is_kept_to_though_its_path_is_the_hosts(linux):
    linux("/proc/self/cgroup", "4:cpuacct,cpu:/docker/123\n3:memory:/docker/123\n")
    linux("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n")
    linux("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")

    assert usable_cores() == 1


@pytest.mark.parametrize(("value", "cores"), [("1", 1), ("3,2", 3), ("64", 4), ("many", 4), ("0", 4), ("", 4)])
def test_a_limit_in_the_environment_is_kept_to(linux, monkeypatch, value, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", value)

    assert usable_cores() == cores


def test_where_cores_can_not_be_read_it_is_torchs_own_default(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_PROC", tmp_path)
    monkeypatch.setattr(devices, "_SYS", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    assert usable_cores() == torch.get_num_threads()


# Memory


def test_the_memory_left_is_the_machines(linux):
    linux("/proc/meminfo", "MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")

    assert memory_available() == 5000 * 1024


@pytest.mark.parametrize(("limit", "left"), [("3000000", 3_000_000 - 2_500_000 + 1_000_000), ("max", 5000 * 1024)])
def test_the_memory_left_is_the_containers_where_that_is_less(linux, limit, left):
    linux("/proc/meminfo", "MemAvailable: 5000 kB\n")
    linux("/proc/self/cgroup", "0::/\n")
    linux("/sys/fs/cgroup/memory.max", limit)
    linux("/sys/fs/cgroup/memory.current", "2500000\n")
    linux("/sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 1000000\nactive_file 7\n")

    assert memory_available() == left


def test_an_older_containers_memory_is_read_too(linux):
    linux("/proc/meminfo", "MemAvailable: 5000 kB\n")
    linux("/proc/self/cgroup", "4:memory:/job\n")
    linux("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000")
    linux("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "400")

    assert memory_available() == 600


def test_a_system_that_does_not_say_gives_no_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_PROC", tmp_path)
    monkeypatch.setattr(devices, "_SYS", tmp_path)
    monkeypatch.setattr(os, "sysconf_names", {}, raising=False)

    assert memory_available() is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_recognised(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_another_error_is_not_taken_for_it(error):
    assert not out_of_memory(error)


def test_what_torch_really_raises_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)

    assert out_of_memory(raised.value)


def test_importing_the_module_does_not_import_torch():
    program = "import sys, microformer.devices; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(devices.__file__).parents[1])}

    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_threads_wait_briefly_unless_the_user_has_said_how(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    devices.share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "5000"

    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    devices.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize(("operations", "threads"), [(1e5, 1), (1e9, 2)])
def test_little_work_is_done_by_one_thread_and_the_others_are_there_again_after_it(operations, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with devices.threads_for(operations):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_works_beside_others_has_one_and_takes_none_from_them():
    before, found = torch.get_num_threads(), {}
    torch.set_num_threads(2)
    try:

        def beside():
            devices.one_thread_here()
            found["beside"] = torch.get_num_threads()

        for name, work in (("beside", beside), ("later", lambda: found.update(later=torch.get_num_threads()))):
            thread = threading.Thread(target=work, name=name)
            thread.start()
            thread.join()
        assert found == {"beside": 1, "later": 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(devices._glibc() is None, reason="with another C library nothing is kept")
def test_memory_that_was_kept_for_another_time_is_given_back():
    held = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # noqa: E731
    devices.use(devices.Compute("cpu", "float32", torch.get_num_threads(), ""))
    tensors = [torch.ones(2**20) for _ in range(50)]
    full = held()
    del tensors
    assert held() > full - 20_000_000  # it was freed, and is still here

    devices.give_back_freed_memory()

    assert held() < full - 150_000_000


def test_the_most_memory_that_was_held_is_known_when_it_is_given_back():
    held = bytearray(200_000_000)
    held[::4096] = b"x" * len(held[::4096])  # each page is used
    during = devices.peak_memory()
    del held
    after = devices.peak_memory()

    assert during is not None
    assert after is not None
    assert during > 200_000_000
    assert after > 0.99 * during  # the system counts in pieces


def test_on_cuda_it_is_the_tensors_of_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12345)
    assert devices.peak_memory("cuda") == 12345
