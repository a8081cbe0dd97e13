"""Print SCALE-Sim's cycles of some products, which tests/benchmark/test_systolic.py holds.

It wants a venv of its own (SCALE-Sim fails on numpy 2.4):

    python -m venv v && v/bin/pip install scalesim==3.0.0 "numpy<2.4"
    v/bin/python scripts/record_scale_sim.py
"""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from pathlib import Path

GEMMS = [  # M, K, N
    (10, 130, 800), (10, 65, 800), (10, 800, 130), (10, 800, 65), (800, 10, 65), (20, 200, 400),
    (64, 35, 100),
]  # fmt: skip
SIZES, DATAFLOWS = (32, 128), ("os", "ws", "is")
CONFIG = """
[general]
run_name = run
[architecture_presets]
ArrayHeight: {size}
ArrayWidth: {size}
IfmapSramSzkB: 512
FilterSramSzkB: 512
OfmapSramSzkB: 512
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow : {dataflow}
Bandwidth : 10
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def record(size: int, dataflow: str, folder: Path) -> list[int]:
    """Return the cycles of each product, without what is fetched ahead."""
    from scalesim.scale_sim import scalesim

    config, products, layout = (folder / name for name in ("run.cfg", "gemms.csv", "layout.csv"))
    config.write_text(CONFIG.format(size=size, dataflow=dataflow))
    lines = (f"g{i},{M},{N},{K},\n" for i, (M, K, N) in enumerate(GEMMS))
    products.write_text("".join(["Layer,M,N,K,\n", *lines]))
    layout.write_text("Layer,\n")
    given = {"config": config, "topology": products, "layout": layout}
    with contextlib.redirect_stdout(io.StringIO()):
        scalesim(
            save_disk_space=True, verbose=False, input_type_gemm=True,
            **{name: str(path) for name, path in given.items()},
        ).run_scale(top_path=str(folder))  # fmt: skip
    (report,) = folder.rglob("COMPUTE_REPORT.csv")
    with report.open() as file:
        return [int(float(row[2])) for row in list(csv.reader(file))[1:]]


if __name__ == "__main__":
    for size in SIZES:
        for dataflow in DATAFLOWS:
            with tempfile.TemporaryDirectory() as folder:
                cycles = record(size, dataflow, Path(folder))
            print(f"    ({size}, {dataflow!r}): {cycles},", flush=True)
