// protocol.py's Fingerprint, of a float32 tensor that comes piece by piece.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "crc32.h"
#include "nlohmann/json.hpp"
#include "splitmix64.h"

class Fingerprint {
public:
    void add(const float * values, size_t count) {
        crc_.add(values, count * sizeof(float));
        count_ += count;
        if (held_ > 0) {
            const size_t moved = std::min(count, kWidth - held_);
            hold(values, moved);
            values += moved;
            count -= moved;
        }
        take(values, count / kWidth);
        hold(values + count / kWidth * kWidth, count % kWidth);
    }

    // null before anything was added.
    nlohmann::ordered_json json(const std::vector<size_t> & shape) const {
        if (count_ == 0) {
            return {};
        }
        Fingerprint whole = *this;
        whole.take_held();
        return whole.told(shape);
    }

private:
    static constexpr size_t kWidth = 64;
    static constexpr size_t kLanes = 8;

    // What the numbers are made of. Lanes, so that the compiler can use vectors: it must not
    // reorder sums by itself.
    struct Sums {
        std::array<double, kLanes> sum{};
        std::array<double, kLanes> squares{};
        std::array<float, kLanes> minimum = lanes(std::numeric_limits<float>::infinity());
        std::array<float, kLanes> maximum = lanes(-std::numeric_limits<float>::infinity());
        uint32_t strange = 0;
    };

    // Part of a row, until it is whole.
    void hold(const float * values, size_t count) {
        std::copy_n(values, count, begun_.begin() + (long) held_);
        held_ += count;
        if (held_ == kWidth) {
            take(begun_.data(), 1);
            held_ = 0;
        }
    }

    // The tensor's last row, where it is shorter than the others: the first element again and again
    // changes neither extreme, and zeros change no sum.
    void take_held() {
        if (held_ == 0) {
            return;
        }
        std::array<float, kWidth> clean;
        std::fill(begun_.begin() + (long) held_, begun_.end(), begun_[0]);
        cleaned(begun_.data(), clean, sums_);
        extremes(clean, sums_);
        std::fill(clean.begin() + (long) held_, clean.end(), 0.0f);
        sum(clean, sums_);
        project(clean, rows_);
    }

    void take(const float * rows, size_t count) {
        Sums sums = sums_;
        std::array<float, kWidth> clean;
        for (size_t row = 0; row < count; ++row) {
            cleaned(rows + row * kWidth, clean, sums);
            extremes(clean, sums);
            sum(clean, sums);
            project(clean, rows_ + row);
        }
        sums_ = sums;
        rows_ += count;
    }

    // Zeros in place of what is no finite number.
    static void cleaned(const float * row, std::array<float, kWidth> & clean, Sums & sums) {
        for (size_t i = 0; i < kWidth; ++i) {
            uint32_t bits = 0;
            std::memcpy(&bits, row + i, sizeof(bits));
            const uint32_t kept = (bits & 0x7F800000u) == 0x7F800000u ? 0u : ~0u;
            sums.strange |= ~kept;
            bits &= kept;
            std::memcpy(&clean[i], &bits, sizeof(bits));
        }
    }

    static void extremes(const std::array<float, kWidth> & row, Sums & sums) {
        for (size_t i = 0; i < kWidth; i += kLanes) {
            for (size_t lane = 0; lane < kLanes; ++lane) {
                const float value = row[i + lane];
                sums.minimum[lane] = value < sums.minimum[lane] ? value : sums.minimum[lane];
                sums.maximum[lane] = value > sums.maximum[lane] ? value : sums.maximum[lane];
            }
        }
    }

    static void sum(const std::array<float, kWidth> & row, Sums & sums) {
        for (size_t i = 0; i < kWidth; i += kLanes) {
            for (size_t lane = 0; lane < kLanes; ++lane) {
                const double value = row[i + lane];
                sums.sum[lane] += value;
                sums.squares[lane] += value * value;
            }
        }
    }

    void project(const std::array<float, kWidth> & row, size_t place) {
        const uint64_t signs = splitmix64(0, place + 1);
        double * buckets = projection_.data() + place % kWidth;
        for (size_t i = 0; i < kWidth; ++i) {
            double value = row[i];
            uint64_t bits = 0;
            std::memcpy(&bits, &value, sizeof(bits));
            bits ^= signs >> i << 63;
            std::memcpy(&value, &bits, sizeof(bits));
            buckets[i] += value;
        }
    }

    nlohmann::ordered_json told(const std::vector<size_t> & shape) const {
        double total = 0;
        double squares = 0;
        for (size_t lane = 0; lane < kLanes; ++lane) {
            total += sums_.sum[lane];
            squares += sums_.squares[lane];
        }
        const double count = (double) count_;
        std::array<float, kWidth> projection;
        for (size_t i = 0; i < kWidth; ++i) projection[i] = (float) (projection_[i] + projection_[i + kWidth]);
        return {{"shape", shape},
                {"crc32", crc_.value()},
                {"finite", sums_.strange == 0},
                {"mean", (float) (total / count)},
                {"rms", (float) std::sqrt(squares / count)},
                {"minimum", *std::min_element(sums_.minimum.begin(), sums_.minimum.end())},
                {"maximum", *std::max_element(sums_.maximum.begin(), sums_.maximum.end())},
                {"projection", projection}};
    }

    template <typename T>
    static std::array<T, kLanes> lanes(T value) {
        std::array<T, kLanes> filled;
        filled.fill(value);
        return filled;
    }

    Crc32 crc_;
    Sums sums_;
    // Buckets of row r begin at r % 64; those from 64 on are the first ones again.
    std::array<double, 2 * kWidth> projection_{};
    size_t count_ = 0;
    size_t rows_ = 0;
    std::array<float, kWidth> begun_{};
    size_t held_ = 0;
};
