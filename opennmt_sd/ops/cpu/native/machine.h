// The kernels in use, and how many threads may run them.
#pragma once
#include "kernels.h"

#include <algorithm>

// Those of the widest instruction set that the machine has and OPENNMT_SD_SIMD allows (module.cpp).
extern const Isa *isa;

// The products of float in bfloat16, likewise.
extern const Products<float> *bfloat16;

// OpenMP's threads do not survive a fork: from then on there is one.
extern bool forked;

template <class T> const Kernels<T> &kernels();
template <> inline const Kernels<float> &kernels<float>() { return isa->f32; }
template <> inline const Kernels<double> &kernels<double>() { return isa->f64; }

// What multiplies elements E.
template <class E> const Products<Sum<E>> &products() { return kernels<E>(); }
template <> inline const Products<float> &products<Pair>() { return *bfloat16; }

inline int team(int threads) { return forked ? 1 : std::max(threads, 1); }
