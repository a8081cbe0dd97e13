// Scratch memory for the kernels and their results, kept from call to call.
#pragma once
#include "kernels.h"

#include <cstdint>

// Fresh memory about to be written, in pages that are touched in few faults.
void use_huge_pages(std::uintptr_t p, int64_t bytes);

// Forgets, in a forked child, what the parent let go of: another thread may have held the lock.
void forget_spare_memory();

template <class T> struct Block {
    T *p;
    explicit Block(int64_t n) : p(n ? (T *)scratch_new(n * sizeof(T)) : nullptr) {}
    ~Block() {
        if (p) scratch_free(p);
    }
    Block(const Block &) = delete;
};
