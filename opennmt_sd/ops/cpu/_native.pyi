# Written by nanobind from the module: python -m nanobind.stubgen -m opennmt_sd.ops.cpu._native
"""Native part of opennmt_sd.ops.cpu"""

from collections.abc import Sequence

compiler: str

def has_bfloat16() -> bool:
    """
    Whether the processor multiplies in bfloat16 itself, and faster (AVX512_BF16 of AMD).
    """

def simd_level() -> str:
    """
    The kernels' instruction set: 'avx512' (F, BW, DQ, VL), 'avx2' (with FMA) or 'baseline'.
    """

def multiply_adds_f32(rounds: int, threads: int) -> int:
    """
    Runs independent multiply-adds in registers; how many, over all threads.
    """

class KeepOperand:
    """What is kept of one input of a layer."""

    def __init__(
        self, *, idx: int, count: int, sets: int, scale: float, mask: int, mask_sets: int
    ) -> None: ...

class LinearOperands:
    """A masked linear layer, or the input's part of a recurrent one."""

    def __init__(
        self, *, x: int, weight: int, packed: bool, bias: int, D: int, N: int, keep: KeepOperand
    ) -> None: ...

class RecurrenceOperands:
    """The recurrence of a layer of LSTM or GRU cells."""

    def __init__(
        self,
        *,
        cell: str,
        weight: int,
        bias: int,
        h0: int,
        c0: int,
        B: int,
        H: int,
        keep: KeepOperand,
        reverse: bool,
        gates: int,
        cells: int,
        hidden: int,
    ) -> None: ...

class LayerGrads:
    """The gradients that a recurrent layer takes and gives."""

    def __init__(
        self,
        *,
        d_hidden: int,
        dh: int,
        dc: int,
        dx: int,
        dw_ih: int,
        db: int,
        dw_hh: int,
        db_hn: int,
    ) -> None: ...

class MemoryOperands:
    """What a step of attention looks at."""

    def __init__(self, *, memory: int, lengths: int, B: int, S: int, D: int) -> None: ...

def fresh_f32(shape: Sequence[int]) -> object: ...
def fresh_f64(shape: Sequence[int]) -> object: ...
def linear_fp_f32(*, input: LinearOperands, sizes: Sequence[int], y: int, threads: int) -> None: ...
def linear_fp_f64(*, input: LinearOperands, sizes: Sequence[int], y: int, threads: int) -> None: ...
def linear_fp_bf16(
    *, input: LinearOperands, sizes: Sequence[int], y: int, threads: int
) -> None: ...
def linear_bp_f32(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dx: int, threads: int
) -> None: ...
def linear_bp_f64(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dx: int, threads: int
) -> None: ...
def linear_bp_bf16(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dx: int, threads: int
) -> None: ...
def linear_wg_f32(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dw: int, threads: int
) -> None: ...
def linear_wg_f64(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dw: int, threads: int
) -> None: ...
def linear_wg_bf16(
    *, input: LinearOperands, sizes: Sequence[int], dy: int, dw: int, threads: int
) -> None: ...
def recurrence_fp_f32(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], gates_x: int, threads: int
) -> None: ...
def recurrence_fp_f64(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], gates_x: int, threads: int
) -> None: ...
def recurrence_fp_bf16(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], gates_x: int, threads: int
) -> None: ...
def recurrence_bp_f32(
    *,
    recurrence: RecurrenceOperands,
    sizes: Sequence[int],
    d_hidden: int,
    dh: int,
    dc: int,
    d_gates: int,
    threads: int,
) -> None: ...
def recurrence_bp_f64(
    *,
    recurrence: RecurrenceOperands,
    sizes: Sequence[int],
    d_hidden: int,
    dh: int,
    dc: int,
    d_gates: int,
    threads: int,
) -> None: ...
def recurrence_bp_bf16(
    *,
    recurrence: RecurrenceOperands,
    sizes: Sequence[int],
    d_hidden: int,
    dh: int,
    dc: int,
    d_gates: int,
    threads: int,
) -> None: ...
def recurrence_wg_f32(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], d_gates: int, dw: int, threads: int
) -> None: ...
def recurrence_wg_f64(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], d_gates: int, dw: int, threads: int
) -> None: ...
def recurrence_wg_bf16(
    *, recurrence: RecurrenceOperands, sizes: Sequence[int], d_gates: int, dw: int, threads: int
) -> None: ...
def layer_fp_f32(
    *, input: LinearOperands, recurrence: RecurrenceOperands, sizes: Sequence[int], threads: int
) -> None: ...
def layer_fp_f64(
    *, input: LinearOperands, recurrence: RecurrenceOperands, sizes: Sequence[int], threads: int
) -> None: ...
def layer_fp_bf16(
    *, input: LinearOperands, recurrence: RecurrenceOperands, sizes: Sequence[int], threads: int
) -> None: ...
def layer_bp_f32(
    *,
    input: LinearOperands,
    recurrence: RecurrenceOperands,
    grads: LayerGrads,
    sizes: Sequence[int],
    threads: int,
) -> None: ...
def layer_bp_f64(
    *,
    input: LinearOperands,
    recurrence: RecurrenceOperands,
    grads: LayerGrads,
    sizes: Sequence[int],
    threads: int,
) -> None: ...
def layer_bp_bf16(
    *,
    input: LinearOperands,
    recurrence: RecurrenceOperands,
    grads: LayerGrads,
    sizes: Sequence[int],
    threads: int,
) -> None: ...
def packed_size_f32(*, N: int, D: int) -> int: ...
def packed_size_f64(*, N: int, D: int) -> int: ...
def packed_size_bf16(*, N: int, D: int) -> int: ...
def prepare_f32(*, weight: int, N: int, D: int, packed: int, threads: int) -> None: ...
def prepare_f64(*, weight: int, N: int, D: int, packed: int, threads: int) -> None: ...
def prepare_bf16(*, weight: int, N: int, D: int, packed: int, threads: int) -> None: ...
def steps_wg_f32(
    *,
    input: LinearOperands,
    sizes: Sequence[int],
    xs: Sequence[int],
    dys: Sequence[int],
    dw: int,
    threads: int,
) -> None: ...
def steps_wg_f64(
    *,
    input: LinearOperands,
    sizes: Sequence[int],
    xs: Sequence[int],
    dys: Sequence[int],
    dw: int,
    threads: int,
) -> None: ...
def steps_wg_bf16(
    *,
    input: LinearOperands,
    sizes: Sequence[int],
    xs: Sequence[int],
    dys: Sequence[int],
    dw: int,
    threads: int,
) -> None: ...
def gates_fp_f32(
    *, gates: int, c: int, B: int, H: int, active: int, c_new: int, h: int, threads: int
) -> None: ...
def gates_fp_f64(
    *, gates: int, c: int, B: int, H: int, active: int, c_new: int, h: int, threads: int
) -> None: ...
def gates_bp_f32(
    *, active: int, c: int, c_new: int, dh: int, B: int, H: int, dc: int, d_gates: int, threads: int
) -> None: ...
def gates_bp_f64(
    *, active: int, c: int, c_new: int, dh: int, B: int, H: int, dc: int, d_gates: int, threads: int
) -> None: ...
def gru_gates_fp_f32(
    *, gates_x: int, gates_h: int, h: int, B: int, H: int, saved: int, h_new: int, threads: int
) -> None: ...
def gru_gates_fp_f64(
    *, gates_x: int, gates_h: int, h: int, B: int, H: int, saved: int, h_new: int, threads: int
) -> None: ...
def gru_gates_bp_f32(
    *,
    saved: int,
    h: int,
    dh_new: int,
    B: int,
    H: int,
    d_gates_x: int,
    d_gates_h: int,
    dh: int,
    threads: int,
) -> None: ...
def gru_gates_bp_f64(
    *,
    saved: int,
    h: int,
    dh_new: int,
    B: int,
    H: int,
    d_gates_x: int,
    d_gates_h: int,
    dh: int,
    threads: int,
) -> None: ...
def nll_f32(
    *,
    logits: int,
    targets: int,
    R: int,
    V: int,
    smoothing: float,
    factor: float,
    losses: int,
    hits: int,
    threads: int,
) -> None: ...
def nll_f64(
    *,
    logits: int,
    targets: int,
    R: int,
    V: int,
    smoothing: float,
    factor: float,
    losses: int,
    hits: int,
    threads: int,
) -> None: ...
def attend_fp_f32(
    *, memory: MemoryOperands, query: int, weights: int, context: int, threads: int
) -> None: ...
def attend_fp_f64(
    *, memory: MemoryOperands, query: int, weights: int, context: int, threads: int
) -> None: ...
def attend_bp_f32(
    *,
    memory: MemoryOperands,
    weights: int,
    d_context: int,
    d_weights: int,
    d_scores: int,
    d_query: int,
    threads: int,
) -> None: ...
def attend_bp_f64(
    *,
    memory: MemoryOperands,
    weights: int,
    d_context: int,
    d_weights: int,
    d_scores: int,
    d_query: int,
    threads: int,
) -> None: ...
def draw_factors_f32(
    *,
    seed: int,
    n: int,
    threshold: int,
    scale: float,
    factors: int,
    x: int,
    size: int,
) -> bool: ...
def draw_factors_f64(
    *,
    seed: int,
    n: int,
    threshold: int,
    scale: float,
    factors: int,
    x: int,
    size: int,
) -> bool: ...
def draw_mask(seed: int, n: int, threshold: int, mask: int) -> None: ...
def draw_sets(seed: int, sets: int, D: int, threshold: int, idx: int, count: int) -> None: ...
def draw_exact_sets(seed: int, sets: int, D: int, k: int, idx: int, count: int) -> None: ...
