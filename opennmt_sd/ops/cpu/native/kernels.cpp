// The kernels, for the instruction set that this file is compiled for (SD_ISA names it).
//
// Everything that is compiled once for each set lies in the files -inl.h, from bottom to top:
//
//   simd         a vector: loads, stores, groups of 16 bytes, exp and tanh
//   base         threads, fair parts, prefetching, scratch memory
//   pack         weights and rows, laid out as the tiles read them
//   outer_tile   rows x a strip of columns: the forward products and WG
//   dot_tile     kept units x rows: the backward products
//   linear       FP, BP and WG of the masked linear layer
//   lstm_cell    the arithmetic of one LSTM cell
//   gru_cell     and of a GRU's
//   recurrence   all steps of a recurrent layer, forward (_fp) and backward (_bp), of any cell
//   nll, attention, philox, peak
//
// Nothing here may have external linkage but the table at the end: the linker could otherwise pick
// this instruction set's copy of a shared function for every machine. So no std:: either.
#include "attention-inl.h"
#include "gru_cell-inl.h"
#include "linear-inl.h"
#include "lstm_cell-inl.h"
#include "nll-inl.h"
#include "peak-inl.h"
#include "philox-inl.h"
#include "recurrence_bp-inl.h"
#include "recurrence_fp-inl.h"

namespace {

template <class Cell, class T = typename Cell::Scalar> constexpr CellKernels<T> cell() {
    return {Cell::GATES,         Cell::SAVED,    Cell::GRADS,  recurrence_fp<Cell>,
            recurrence_bp<Cell>, grads_of<Cell>, ungroup<Cell>};
}

template <class T> constexpr Kernels<T> table() {
    Kernels<T> k = {};
    k.fp = fp<T>;
    k.bp = bp<T>;
    k.wg = wg<T>;
    k.prepare = prepare<T>;
    k.packed_size = packed_size<T>;
    k.G = G;
    k.L = L<T>;
    k.lstm = cell<LstmCell<T>>();
    k.gru = cell<GruCell<T>>();
    k.gates_fp = gates_fp<T>;
    k.gates_bp = gates_bp<T>;
    k.gru_gates_fp = gru_gates_fp<T>;
    k.gru_gates_bp = gru_gates_bp<T>;
    k.nll = nll<T>;
    k.attend_fp = attend_fp<T>;
    k.attend_bp = attend_bp<T>;
    return k;
}
// A constant: no code of this instruction set runs before it has been chosen.
template <class T> constexpr Kernels<T> TABLE = table<T>();

} // namespace

extern const Isa SD_ISA = {TABLE<float>, TABLE<double>, draw_mask, draw_bits, multiply_adds};
