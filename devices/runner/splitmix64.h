// splitmix64, by place: the same numbers in every arm without a state to carry.
#pragma once

#include <cstdint>

// The `n`-th output, from 1, of splitmix64 seeded with `seed`.
inline uint64_t splitmix64(uint64_t seed, uint64_t n) {
    uint64_t mixed = seed + n * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
}
