// The table of what multiplies, of elements E: the same functions whatever they are.
#pragma once
#include "gru_cell-inl.h"
#include "linear-inl.h"
#include "lstm_cell-inl.h"
#include "recurrence_bp-inl.h"
#include "recurrence_fp-inl.h"

namespace {

template <class Cell, class E> constexpr CellKernels<Sum<E>> cell() {
    return {
        Cell::GATES,    Cell::SAVED,  Cell::GRADS, recurrence_fp<Cell, E>, recurrence_bp<Cell, E>,
        grads_of<Cell>, ungroup<Cell>};
}

template <class E, class T = Sum<E>> constexpr Products<T> products() {
    Products<T> k = {};
    k.fp = fp<E>;
    k.bp = bp<E>;
    k.wg = wg<E>;
    k.prepare = prepare<E>;
    k.packed_size = packed_size<T>;
    k.G = G;
    k.L = L<T>;
    k.lstm = cell<LstmCell<T>, E>();
    k.gru = cell<GruCell<T>, E>();
    return k;
}

} // namespace
