// Which of libmtmd's chunks are evaluated: all of them, or the overview alone.
//
// For this projector libmtmd always emits slices and puts the overview last:
//
//     before <fake><row_1_col_1> | tile | <fake><row_1_col_2> | tile | ...
//     "\n\n" <fake><global-img> | overview | <fake> after
//
// `single` keeps before, <fake><global-img>, overview, <fake> after: the ids transformers gives
// under do_image_splitting=False.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "fault.h"
#include "llama.h"
#include "mtmd.h"

// Text ids, or image tokens: of one tile, or of none where the prompt is a trajectory's.
struct Chunk {
    std::vector<llama_token> ids;
    bool image = false;
    const mtmd_input_chunk * tile = nullptr;
    size_t n_tokens = 0;
};

constexpr llama_token kImageToken = -1;

struct Prompt {
    std::vector<Chunk> chunks;
    int rows = 0;
    int columns = 0;

    size_t n_tokens() const {
        size_t sum = 0;
        for (const Chunk & chunk : chunks) sum += chunk.n_tokens;
        return sum;
    }

    size_t n_image_tokens() const {
        size_t sum = 0;
        for (const Chunk & chunk : chunks) sum += chunk.image ? chunk.n_tokens : 0;
        return sum;
    }

    std::vector<const mtmd_input_chunk *> tiles() const {
        std::vector<const mtmd_input_chunk *> found;
        for (const Chunk & chunk : chunks) {
            if (chunk.tile) found.push_back(chunk.tile);
        }
        return found;
    }

    // Text ids as evaluated; each image token is -1.
    std::vector<llama_token> observed_ids() const {
        std::vector<llama_token> ids;
        for (const Chunk & chunk : chunks) {
            if (chunk.image) {
                ids.insert(ids.end(), chunk.n_tokens, kImageToken);
            } else {
                ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
            }
        }
        return ids;
    }
};

// The bytes of one token, special ones as they are spelled.
inline std::string piece(const llama_vocab * vocab, llama_token id) {
    std::string text(64, '\0');
    int length = llama_token_to_piece(vocab, id, text.data(), (int) text.size(), 0, true);
    if (length < 0) {
        text.resize(-length);
        length = llama_token_to_piece(vocab, id, text.data(), (int) text.size(), 0, true);
    }
    text.resize(std::max(length, 0));
    return text;
}

inline std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text, bool parse_special) {
    std::vector<llama_token> ids(text.size() + 1);
    const int count = llama_tokenize(vocab, text.data(), (int) text.size(), ids.data(), (int) ids.size(), false, parse_special);
    ids.resize(std::max(count, 0));
    return ids;
}

namespace chunks_detail {

// The text before the tile at `place`, and where in it the frame around that tile opens.
inline std::pair<const std::vector<llama_token> *, size_t> framed(
        const std::vector<Chunk> & chunks, size_t place, llama_token frame) {
    if (place > 0 && !chunks[place - 1].tile) {
        const std::vector<llama_token> & ids = chunks[place - 1].ids;
        const auto last = std::find(ids.rbegin(), ids.rend(), frame);
        if (last != ids.rend()) {
            return {&ids, ids.size() - 1 - (size_t) (last - ids.rbegin())};
        }
    }
    throw Fault("tokenize", "a tile without <fake_token_around_image> before it: not an Idefics3 projector");
}

inline std::vector<Chunk> all(const mtmd_input_chunks * emitted, int n_vocab) {
    std::vector<Chunk> chunks;
    for (size_t i = 0; i < mtmd_input_chunks_size(emitted); ++i) {
        const mtmd_input_chunk * source = mtmd_input_chunks_get(emitted, i);
        Chunk chunk;
        chunk.n_tokens = mtmd_input_chunk_get_n_tokens(source);
        if (mtmd_input_chunk_get_type(source) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
            size_t count = 0;
            const llama_token * ids = mtmd_input_chunk_get_tokens_text(source, &count);
            chunk.ids.assign(ids, ids + count);
            for (llama_token id : chunk.ids) {
                if (id < 0 || id >= n_vocab) {
                    throw Fault("tokenize", "the tokenizer lacks a token that libmtmd puts around images");
                }
            }
        } else {
            chunk.image = true;
            chunk.tile = source;
        }
        chunks.push_back(std::move(chunk));
    }
    return chunks;
}

}  // namespace chunks_detail

// What of libmtmd's chunks is evaluated. The tiles stay owned by `emitted`.
inline Prompt evaluated(const mtmd_input_chunks * emitted, const llama_vocab * vocab, bool single) {
    Prompt prompt;
    prompt.chunks = chunks_detail::all(emitted, llama_vocab_n_tokens(vocab));
    std::vector<size_t> tiles;
    for (size_t i = 0; i < prompt.chunks.size(); ++i) {
        if (prompt.chunks[i].tile) tiles.push_back(i);
    }
    if (tiles.empty()) {
        throw Fault("tokenize", "libmtmd gave no image chunk");
    }
    if (single) {
        const std::vector<llama_token> frame = tokenize(vocab, "<fake_token_around_image>", true);
        if (frame.size() != 1) {
            throw Fault("tokenize", "the tokenizer has no <fake_token_around_image>: not a SmolVLM text model");
        }
        const auto [before, before_end] = chunks_detail::framed(prompt.chunks, tiles.front(), frame[0]);
        const auto [between, opening] = chunks_detail::framed(prompt.chunks, tiles.back(), frame[0]);
        Chunk head;
        head.ids.assign(before->begin(), before->begin() + (long) before_end);
        head.ids.insert(head.ids.end(), between->begin() + (long) opening, between->end());
        head.n_tokens = head.ids.size();
        std::vector<Chunk> kept{std::move(head)};
        kept.insert(kept.end(), prompt.chunks.begin() + (long) tiles.back(), prompt.chunks.end());
        prompt.chunks = std::move(kept);
    } else if (tiles.size() > 1) {
        // The token before the last slice says how many rows and columns there are.
        const size_t slice = tiles[tiles.size() - 2];
        const bool introduced = slice > 0 && !prompt.chunks[slice - 1].ids.empty();
        const std::string spelled = introduced ? piece(vocab, prompt.chunks[slice - 1].ids.back()) : "";
        if (sscanf(spelled.c_str(), "<row_%d_col_%d>", &prompt.rows, &prompt.columns) != 2) {
            throw Fault("tokenize", "the last slice is not introduced by <row_R_col_C>");
        }
    }
    return prompt;
}

// A trajectory's prompt, its ids as `observed_ids` tells them; consecutive ids of a kind make one
// chunk.
inline std::vector<Chunk> chunks_of(const std::vector<llama_token> & ids, const llama_vocab * vocab) {
    std::vector<Chunk> chunks;
    for (llama_token id : ids) {
        if (id < kImageToken || id >= llama_vocab_n_tokens(vocab)) {
            throw Fault("trajectory", "the id " + std::to_string(id) + " of the trajectory is not in the vocabulary");
        }
        const bool image = id == kImageToken;
        if (chunks.empty() || chunks.back().image != image) {
            chunks.emplace_back();
            chunks.back().image = image;
        }
        if (!image) chunks.back().ids.push_back(id);
        ++chunks.back().n_tokens;
    }
    return chunks;
}
