// The kernels, for the instruction set that this file is compiled for (SD_ISA names it).
//
// Two register tiles do all the work:
//   outer: rows x a strip of columns. One packed weight row, one element of each of the rows, one
//          multiply-add into registers. FP, WG and the forward recurrence.
//   dot:   kept units x rows, where a vector holds L (four floats) consecutive n of G rows, so that
//          sums over n need little work at the end, and any batch fills the vectors. BP and the
//          backward recurrence.
// A strip is NR rows of the weight, packed once a call as [D, NR]: a kept unit is then NR
// neighbours, whatever the keep set, and all steps read the strip from cache.
//
// Nothing here may have external linkage but the table at the end: the linker could otherwise pick
// this instruction set's copy of a shared function for every machine. So no std:: either.
#include "attention.h"
#include "likelihood.h"
#include "peak.h"
#include "philox.h"
#include "steps.h"

namespace {

template <class T>
constexpr Kernels<T> TABLE = {
    G, L<T>, group_size<T>,
    fp<T>, bp<T>, wg<T>, prepare<T>, packed_size<T>,
    lstm_fp<T>, lstm_bp<T>, ungroup<T>,
    gates_fp<T>, gates_bp<T>, nll<T>, attend_fp<T>, attend_bp<T>,
};

} // namespace

extern const Isa SD_ISA = {TABLE<float>, TABLE<double>, draw_mask, multiply_adds};
