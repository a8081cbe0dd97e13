// What the binding files share. Each lets go of the GIL: no Python object is touched beyond its
// arguments.
#pragma once
#include "machine.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <string>

namespace nb = nanobind;
using namespace nb::literals;

using Free = nb::call_guard<nb::gil_scoped_release>;

// name_f32 and name_f64.
#define BIND(m, name, ...)                                                                         \
    m.def(#name "_f32", &name<float>, Free(), nb::kw_only(), __VA_ARGS__);                         \
    m.def(#name "_f64", &name<double>, Free(), nb::kw_only(), __VA_ARGS__)

// And name_bf16, of float operands that are multiplied in bfloat16.
#define BIND_PRODUCT(m, name, ...)                                                                 \
    BIND(m, name, __VA_ARGS__);                                                                    \
    m.def(#name "_bf16", &name<Pair>, Free(), nb::kw_only(), __VA_ARGS__)

// Each defines its part of the module.
void bind_attention(nb::module_ &m);
void bind_dropout(nb::module_ &m);
void bind_linear(nb::module_ &m);
void bind_memory(nb::module_ &m);
void bind_nll(nb::module_ &m);
void bind_operands(nb::module_ &m);
void bind_recurrent(nb::module_ &m);
void bind_stepwise(nb::module_ &m);
