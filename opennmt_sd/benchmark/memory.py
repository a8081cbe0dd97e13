"""Peak memory of a workload: on a CPU in a process of its own, on a GPU as torch counts it there.

``python -m opennmt_sd.benchmark.memory SUITE CASE VARIANT`` prints the peak of resident memory over
three runs, in MB, less what the process holds before the workload is built: so parameters,
gradients and everything kept or made on the way count, and the libraries do not. A suite whose
libraries load more on their first use has a function ``warm_up``, which makes them do so before.
On a GPU the same is counted in this process, where what libraries hold is known.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import torch

from opennmt_sd.benchmark.target import CPU, Target

RUNS = 3


def peak_mb(suite: str, case: str, variant: str, target: Target = CPU) -> float:
    """Measure ``workload(case, variant)`` of a suite's module.

    Raises:
        RuntimeError: the process failed; its last words are in the text.
    """
    if target.gpu:
        return _on_gpu(suite, case, variant, target)
    command = [sys.executable, "-m", __name__, suite, case, variant, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {suite} {case} ({variant}): {done.stderr.strip()[-2000:]}")
    return float(done.stdout.split()[-1])


def _on_gpu(suite: str, case: str, variant: str, target: Target) -> float:
    gc.collect()  # models that know each other
    torch.cuda.reset_peak_memory_stats(target.device)
    before = torch.cuda.memory_allocated(target.device)
    run = importlib.import_module(f"opennmt_sd.benchmark.{suite}").workload(case, variant, target)
    for _ in range(RUNS):
        run()
    return (torch.cuda.max_memory_allocated(target.device) - before) / 2**20


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}: memory is measured on Linux only")


def _main(suite: str, case: str, variant: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    module = importlib.import_module(f"opennmt_sd.benchmark.{suite}")
    warm = torch.nn.LSTM(8, 8)  # what torch sets up once in a process
    warm(torch.randn(2, 2, 8))[0].sum().backward()
    getattr(module, "warm_up", lambda: None)()
    before = _status("VmRSS")
    run = module.workload(case, variant)
    for _ in range(RUNS):
        run()
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    _main(*sys.argv[1:])
