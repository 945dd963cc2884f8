// One request's images, answered one after another as the app does.
#pragma once

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "chunks.h"
#include "decoding.h"
#include "driving.h"
#include "evidence.h"
#include "fault.h"
#include "hash/hash.h"
#include "heartbeat.h"
#include "model.h"
#include "request.h"
#include "results.h"
#include "step.h"
#include "trajectory.h"

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

// A look at a prompt on its way through the text model, for as long as this lives.
class TextWatched {
public:
    TextWatched(Model & model, TextLook look) : model_(model), look_(look) { model_.watch_text(&look_); }
    ~TextWatched() { model_.watch_text(nullptr); }
    TextWatched(const TextWatched &) = delete;
    TextWatched & operator=(const TextWatched &) = delete;

private:
    Model & model_;
    TextLook look_;
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
        const Prompt prompt = tokenized(bitmap.get(), emitted.get());
        record.timings.tokenize = tokenizing.ms();
        record.tiled = true;
        record.rows = prompt.rows;
        record.columns = prompt.columns;
        record.image_tokens = prompt.n_image_tokens();
        record.prompt_ids = prompt.observed_ids();
        if (image.trajectory_path.empty()) {
            prefill(prompt, record);
        } else {
            drive(Trajectory(image.trajectory_path), prompt.tiles(), record);
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

    void refuse_overlong(const Prompt & prompt) const {
        if (prompt.n_tokens() + 1 > (size_t) request_.context) {
            throw Fault("context_full", "the prompt has " + std::to_string(prompt.n_tokens()) +
                                            " tokens, the context holds " + std::to_string(request_.context));
        }
    }

    // Each tile is decoded as soon as it is encoded.
    void prefill(const Prompt & prompt, ImageRecord & record) {
        refuse_overlong(prompt);
        TextLook text;
        text.layers = record.evidence.text_layers();
        const TextWatched watched(model_, text);
        for (const Chunk & chunk : prompt.chunks) {
            float * rows = nullptr;
            if (chunk.image) {
                VisionLook look;
                look.pixels = record.evidence.wants_any() ? &pixels_ : nullptr;
                rows = encode(chunk.tile, look, record);
            }
            decode(chunk, rows, &chunk == &prompt.chunks.back(), record.timings);
        }
    }

    // In place of `prefill`, along the trajectory: its tiles, and its prompt.
    void drive(const Trajectory & along, const std::vector<const mtmd_input_chunk *> & tiles, ImageRecord & record) {
        Prompt prompt;
        prompt.chunks = chunks_of(along.prompt_ids(), model_.vocab());
        refuse_overlong(prompt);
        Drive drive{along, record.driven, tiles.size()};
        std::vector<float> rows = embeddings_along(drive, prompt, tiles, record);

        TextLook text;
        text.layers = record.evidence.text_layers();
        text.drive = &drive;
        text.tokens = prompt.n_tokens();
        text.text_tokens = prompt.n_tokens() - prompt.n_image_tokens();
        const TextWatched watched(model_, text);
        float * next = rows.data();
        for (const Chunk & chunk : prompt.chunks) {
            decode(chunk, next, &chunk == &prompt.chunks.back(), record.timings);
            if (chunk.image) next += chunk.n_tokens * model_.embedding_width();
        }
        const size_t n_vocab = (size_t) llama_vocab_n_tokens(model_.vocab());
        drive.measured.measure(along, "prefill", model_.logits(), 1, n_vocab, 1);
    }

    // What takes the place of the prompt's image tokens: the trajectory's rows where it has some that
    // fit, else the candidate's own.
    std::vector<float> embeddings_along(Drive & drive, const Prompt & prompt, const std::vector<const mtmd_input_chunk *> & tiles,
                                        ImageRecord & record) {
        const size_t width = model_.embedding_width();
        std::vector<float> rows;
        for (size_t i = 0; i < std::max(tiles.size(), drive.tiles); ++i) {
            const bool is_own = i < tiles.size();
            VisionLook look;
            look.pixels = is_own ? &pixels_ : nullptr;
            look.drive = &drive;
            look.tile = i;
            // Any tile lends its place in the graph: all are of one size.
            const mtmd_input_chunk * tile = tiles[is_own ? i : 0];
            if (const float * encoded = encode(tile, look, record)) {
                const size_t count = mtmd_input_chunk_get_n_tokens(tile);
                drive.measured.measure(drive.along, "embed", encoded, count, width, count * drive.tiles);
                rows.insert(rows.end(), encoded, encoded + count * width);
            }
        }
        const Reference * reference = drive.along.find("embed");
        if (reference && reference->rows == prompt.n_image_tokens() && reference->width == width) {
            rows.assign(reference->values, reference->values + reference->rows * width);
        }
        if (rows.size() != prompt.n_image_tokens() * width) {
            drive.along.refuse("its prompt has " + std::to_string(prompt.n_image_tokens()) +
                               " image tokens, and embeddings of width " + std::to_string(width) + " for " +
                               std::to_string(rows.size() / width));
        }
        return rows;
    }

    // One tile's embeddings, valid until the next call; null as `Model::encode`.
    float * encode(const mtmd_input_chunk * tile, VisionLook & look, ImageRecord & record) {
        heartbeat_.at("encode");
        look.layers = record.evidence.vision_layers();
        Stopwatch encoding;
        float * rows = model_.encode(tile, look);
        if (rows) record.timings.encode.push_back(encoding.ms());
        if ((look.pixels || look.drive) && !look.found) {
            throw Fault("encode", "the vision graph has no input named inp_raw");
        }
        if (look.pixels) record.evidence.add_pixels(pixels_, look.height, look.width);
        if (rows) record.evidence.add_embeddings(rows, mtmd_input_chunk_get_n_tokens(tile), model_.embedding_width());
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
