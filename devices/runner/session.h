// One request's images, answered one after another as the app does.
#pragma once

#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "chunks.h"
#include "decoding.h"
#include "evidence.h"
#include "fault.h"
#include "files.h"
#include "hash/hash.h"
#include "heartbeat.h"
#include "model.h"
#include "request.h"
#include "results.h"
#include "step.h"

class Stopwatch {
public:
    double ms() const {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_).count();
    }

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

inline mtmd::bitmap_ptr read_image(const Model & model, const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw Fault("image_decode", "cannot read " + path);
    }
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LlamaLog::forget();
    mtmd::bitmap_ptr bitmap(mtmd_helper_bitmap_init_from_buf(
        model.vision(), reinterpret_cast<const unsigned char *>(bytes.data()), bytes.size(), false,
        mtmd_helper_init_opt_default()).bitmap);
    if (!bitmap) {
        throw Fault("image_decode", path + " is no image that can be decoded");
    }
    return bitmap;
}

// Keeps the outputs of the text model's layers while it lives.
class TextLayersKept {
public:
    TextLayersKept(Model & model, Tensors * kept) : model_(model) { model_.keep_text_layers(kept); }
    ~TextLayersKept() { model_.keep_text_layers(nullptr); }
    TextLayersKept(const TextLayersKept &) = delete;
    TextLayersKept & operator=(const TextLayersKept &) = delete;

private:
    Model & model_;
};

class Session {
public:
    Session(const Request & request, Model & model, Heartbeat & heartbeat)
        : request_(request), model_(model), heartbeat_(heartbeat), chooser_(request.decoding, model.vocab()) {
        for (const std::string & label : request.labels) {
            const std::vector<llama_token> ids = tokenize(model.vocab(), label, false);
            if (ids.empty()) {
                throw Fault("request", "the label '" + label + "' has no token");
            }
            label_ids_.push_back(ids.front());
        }
    }

    // Fills `record` as far as it comes; a Fault says why it came no further.
    void answer(const ImageRequest & image, int index, ImageRecord & record) {
        heartbeat_.at("image", index);
        Stopwatch decoding;
        const mtmd::bitmap_ptr bitmap = read_image(model_, image.pixels_path);
        record.timings.image_decode = decoding.ms();
        record.pixels_sha256 = hash_sha256_hex(mtmd_bitmap_get_data(bitmap.get()), mtmd_bitmap_get_n_bytes(bitmap.get()));

        model_.clear();
        heartbeat_.at("tokenize");
        Stopwatch tokenizing;
        const mtmd::input_chunks_ptr emitted(mtmd_input_chunks_init());
        Prompt prompt = tokenized(bitmap.get(), emitted.get());
        record.timings.tokenize = tokenizing.ms();
        const std::vector<const mtmd_input_chunk *> tiles = prompt.tiles();
        if (image.given.prompt_ids) prompt.chunks = chunks_of(*image.given.prompt_ids, model_.vocab());
        record.tiled = true;
        record.rows = prompt.rows;
        record.columns = prompt.columns;
        record.image_tokens = prompt.n_image_tokens();
        record.prompt_ids = prompt.observed_ids();
        if (prompt.n_tokens() + 1 > (size_t) request_.context) {
            throw Fault("context_full", "the prompt has " + std::to_string(prompt.n_tokens()) +
                                            " tokens, the context holds " + std::to_string(request_.context));
        }
        if (image.given.prompt_ids || !image.given.embeddings_path.empty() || !image.given.pixel_values_path.empty()) {
            std::vector<float> rows = rows_for(image.given, tiles, record);
            prefill_with(rows, prompt, record);
        } else {
            prefill(prompt, record);
        }
        heartbeat_.at("decode");
        generate(record);
    }

private:
    Prompt tokenized(const mtmd_bitmap * bitmap, mtmd_input_chunks * emitted) const {
        const mtmd_input_text text{request_.prompt.data(), request_.prompt.size(), request_.add_special, request_.parse_special};
        LlamaLog::forget();
        if (const int status = mtmd_tokenize(model_.vision(), emitted, &text, &bitmap, 1)) {
            throw Fault("tokenize", "mtmd_tokenize: " + std::to_string(status) + ": " + LlamaLog::reason());
        }
        return evaluated(emitted, model_.vocab(), request_.single);
    }

    // Each tile is decoded as soon as it is encoded.
    void prefill(const Prompt & prompt, ImageRecord & record) {
        const TextLayersKept kept(model_, record.evidence.text_layers());
        for (const Chunk & chunk : prompt.chunks) {
            float * rows = nullptr;
            if (chunk.image) {
                VisionLook look;
                rows = encode(chunk.tile, look, record);
            }
            decode(chunk, rows, &chunk == &prompt.chunks.back(), record.timings);
        }
    }

    // The rows that take the place of the prompt's image tokens where something was put in.
    std::vector<float> rows_for(const Given & given, const std::vector<const mtmd_input_chunk *> & tiles, ImageRecord & record) {
        if (!given.embeddings_path.empty()) {
            return read_floats(given.embeddings_path, "encode");
        }
        std::vector<float> pixels;
        if (!given.pixel_values_path.empty()) pixels = read_floats(given.pixel_values_path, "encode");
        std::vector<float> rows;
        size_t put_in = 0;
        for (size_t i = 0; pixels.empty() ? i < tiles.size() : put_in < pixels.size(); ++i) {
            VisionLook look;
            look.given = pixels.empty() ? nullptr : pixels.data() + put_in;
            look.given_count = pixels.size() - put_in;
            // Any tile lends its place in the graph: all are of one size.
            const mtmd_input_chunk * tile = tiles[pixels.empty() ? i : 0];
            const float * encoded = encode(tile, look, record);
            rows.insert(rows.end(), encoded, encoded + mtmd_input_chunk_get_n_tokens(tile) * model_.embedding_width());
            put_in += look.count();
        }
        return rows;
    }

    void prefill_with(std::vector<float> & rows, const Prompt & prompt, ImageRecord & record) {
        const size_t width = model_.embedding_width();
        if (rows.size() != prompt.n_image_tokens() * width) {
            throw Fault("tokenize", "the prompt has " + std::to_string(prompt.n_image_tokens()) + " image tokens of width " +
                                        std::to_string(width) + ", there are " + std::to_string(rows.size()) + " values for them");
        }
        const TextLayersKept kept(model_, record.evidence.text_layers());
        float * next = rows.data();
        for (const Chunk & chunk : prompt.chunks) {
            decode(chunk, next, &chunk == &prompt.chunks.back(), record.timings);
            if (chunk.image) next += chunk.n_tokens * width;
        }
    }

    // One tile's embeddings, valid until the next call.
    float * encode(const mtmd_input_chunk * tile, VisionLook & look, ImageRecord & record) {
        heartbeat_.at("encode");
        look.pixels = !look.given && record.evidence.wants_any() ? &pixels_ : nullptr;
        look.layers = record.evidence.vision_layers();
        Stopwatch encoding;
        float * rows = model_.encode(tile, look);
        record.timings.encode.push_back(encoding.ms());
        if ((look.given || look.pixels) && !look.found) {
            throw Fault("encode", "the vision graph has no input named inp_raw");
        }
        if (look.given && look.given_count < look.count()) {
            throw Fault("encode", std::to_string(look.given_count) + " pixel values were given, a tile has " +
                                      std::to_string(look.count()));
        }
        if (look.pixels) record.evidence.add_pixels(pixels_, look.height, look.width);
        record.evidence.add_embeddings(rows, mtmd_input_chunk_get_n_tokens(tile), model_.embedding_width());
        return rows;
    }

    // `rows`: the chunk's, where it is one of image tokens.
    void decode(const Chunk & chunk, float * rows, bool logits_last, TimingsMs & timings) {
        heartbeat_.at("prefill");
        Stopwatch filling;
        if (chunk.image) {
            model_.decode_rows(rows, chunk.n_tokens, logits_last);
        } else {
            model_.decode(chunk.ids, logits_last);
        }
        timings.prefill += filling.ms();
    }

    void generate(ImageRecord & record) {
        const size_t n_vocab = (size_t) llama_vocab_n_tokens(model_.vocab());
        record.evidence.add_prefill(model_.logits(), n_vocab);
        std::vector<int> chosen;
        for (bool first = true;; first = false) {
            const Step step(model_.logits(), (int) n_vocab);
            for (size_t i = 0; first && i < label_ids_.size(); ++i) {
                record.label_logprobs[request_.labels[i]] = step.logprob(label_ids_[i]);
            }
            const int id = chooser_.choose(step, chosen);
            chosen.push_back(id);
            const std::string spelled = piece(model_.vocab(), id);
            record.tokens.push_back({id, spelled, step.logprob(id), step.top(request_.top_k)});
            if (chooser_.ends(id)) {
                record.stop_reason = "eog";
                return;
            }
            record.text += spelled;
            if (chosen.size() == (size_t) request_.max_tokens) {
                record.stop_reason = "max_tokens";
                return;
            }
            if (model_.position() >= request_.context) {
                throw Fault("context_full", "the answer filled the context of " + std::to_string(request_.context));
            }
            Stopwatch decoding;
            model_.decode({id}, true);
            record.timings.decode.push_back(decoding.ms());
        }
    }

    const Request & request_;
    Model & model_;
    Heartbeat & heartbeat_;
    const Chooser chooser_;
    std::vector<llama_token> label_ids_;
    std::vector<float> pixels_;  // of one tile; kept for the next one's
};
