// zlib's CRC-32 over bytes that come piece by piece. Fast, as every image's pixels go through it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

class Crc32 {
public:
    void add(const void * data, size_t size) {
        const uint8_t * bytes = static_cast<const uint8_t *>(data);
        static const Tables t;
#if !defined(__ARM_FEATURE_CRC32)
        for (; size >= kStreams * kStream; size -= kStreams * kStream, bytes += kStreams * kStream) {
            state_ = streams(t, state_, bytes);
        }
#endif
        for (; size >= 8; size -= 8, bytes += 8) state_ = eight(t, state_, bytes);
        for (; size > 0; --size, ++bytes) state_ = t.byte[0][(state_ ^ *bytes) & 255] ^ state_ >> 8;
    }

    uint32_t value() const { return ~state_; }

private:
    using Table = std::array<uint32_t, 256>;

    // Each step waits for the one before it, so the processor is given several streams at once.
    static constexpr size_t kStreams = 4;
    static constexpr size_t kStream = 4096;

    struct Tables {
        std::array<Table, 8> byte;    // [n][b]: what byte `b` does to the state n bytes later
        std::array<Table, 4> stream;  // [n][b]: what byte n of the state becomes kStream zeros later

        Tables() {
            for (uint32_t value = 0; value < 256; ++value) {
                uint32_t state = value;
                for (int bit = 0; bit < 8; ++bit) state = state & 1 ? state >> 1 ^ 0xEDB88320u : state >> 1;
                byte[0][value] = state;
            }
            for (size_t later = 1; later < byte.size(); ++later) {
                for (size_t value = 0; value < 256; ++value) byte[later][value] = after_zero(byte[later - 1][value]);
            }
            std::array<uint32_t, 32> bits{};
            for (size_t bit = 0; bit < bits.size(); ++bit) {
                bits[bit] = 1u << bit;
                for (size_t zero = 0; zero < kStream; ++zero) bits[bit] = after_zero(bits[bit]);
            }
            for (size_t bit = 0; bit < bits.size(); ++bit) {
                for (size_t value = 0; value < 256; ++value) {
                    const bool set = value >> (bit % 8) & 1;
                    stream[bit / 8][value] = (bit % 8 ? stream[bit / 8][value] : 0) ^ (set ? bits[bit] : 0);
                }
            }
        }

        uint32_t after_zero(uint32_t state) const { return byte[0][state & 255] ^ state >> 8; }
    };

    static uint32_t word(const uint8_t * bytes) {
        uint32_t value = 0;
        std::memcpy(&value, bytes, sizeof(value));
        return value;
    }

#if defined(__ARM_FEATURE_CRC32)
    static uint32_t eight(const Tables &, uint32_t state, const uint8_t * bytes) {
        return __crc32d(state, (uint64_t) word(bytes + 4) << 32 | word(bytes));
    }
#else
    static uint32_t eight(const Tables & tables, uint32_t state, const uint8_t * bytes) {
        const std::array<Table, 8> & t = tables.byte;
        const uint32_t low = word(bytes) ^ state;
        const uint32_t high = word(bytes + 4);
        return t[7][low & 255] ^ t[6][low >> 8 & 255] ^ t[5][low >> 16 & 255] ^ t[4][low >> 24] ^
               t[3][high & 255] ^ t[2][high >> 8 & 255] ^ t[1][high >> 16 & 255] ^ t[0][high >> 24];
    }

    static uint32_t streams(const Tables & tables, uint32_t state, const uint8_t * bytes) {
        std::array<uint32_t, kStreams> each{state};
        for (size_t at = 0; at < kStream; at += 8) {
            for (size_t i = 0; i < kStreams; ++i) each[i] = eight(tables, each[i], bytes + i * kStream + at);
        }
        const std::array<Table, 4> & t = tables.stream;
        uint32_t joined = each[0];
        for (size_t i = 1; i < kStreams; ++i) {
            joined = each[i] ^ t[0][joined & 255] ^ t[1][joined >> 8 & 255] ^ t[2][joined >> 16 & 255] ^ t[3][joined >> 24];
        }
        return joined;
    }
#endif

    uint32_t state_ = ~0u;
};
