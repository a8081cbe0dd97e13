// The products of float in bfloat16, for the instruction set that this file is compiled for
// (SD_TABLE names them). Like kernels.cpp, it links nothing but its table.
#include "products-inl.h"

namespace {
constexpr Products<float> TABLE = products<Pair>();
} // namespace

extern const Products<float> SD_TABLE = TABLE;
