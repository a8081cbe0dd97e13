// The kernels, for the instruction set that this file is compiled for (SD_ISA names it).
//
// Everything that is compiled once for each set lies in the files -inl.h, from bottom to top:
//
//   simd         a vector: loads, stores, groups of 16 bytes, exp and tanh
//   bfloat16     a vector of pairs, which are multiplied in bfloat16 (bfloat16.cpp)
//   base         threads, fair parts, prefetching, scratch memory
//   pack         weights and rows, laid out as the tiles read them
//   outer_tile   rows x a strip of columns: the forward products and WG
//   dot_tile     kept units x rows: the backward products
//   linear       FP, BP and WG of the masked linear layer
//   lstm_cell    the arithmetic of one LSTM cell
//   gru_cell     and of a GRU's
//   recurrence   all steps of a recurrent layer, forward (_fp) and backward (_bp), of any cell
//   products     the table of what multiplies
//   nll, attention, philox, peak
//
// Nothing here may have external linkage but the table at the end: the linker could otherwise pick
// this instruction set's copy of a shared function for every machine. So no std:: either.
#include "attention-inl.h"
#include "nll-inl.h"
#include "peak-inl.h"
#include "philox-inl.h"
#include "products-inl.h"

namespace {

template <class T> constexpr Kernels<T> table() {
    Kernels<T> k = {};
    (Products<T> &)k = products<T>();
    k.gates_fp = gates_fp<T>;
    k.gates_bp = gates_bp<T>;
    k.gru_gates_fp = gru_gates_fp<T>;
    k.gru_gates_bp = gru_gates_bp<T>;
    k.draw_factors = draw_factors<T>;
    k.finite = finite<T>;
    k.nll = nll<T>;
    k.attend_fp = attend_fp<T>;
    k.attend_bp = attend_bp<T>;
    return k;
}
// A constant: no code of this instruction set runs before it has been chosen.
template <class T> constexpr Kernels<T> TABLE = table<T>();

} // namespace

extern const Isa SD_ISA = {TABLE<float>, TABLE<double>, draw_mask, draw_bits, multiply_adds};
