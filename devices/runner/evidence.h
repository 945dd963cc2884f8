// What is kept of one image's tensors: a fingerprint of each stage, and in deep mode all of them.
#pragma once

#include <utility>
#include <vector>

#include "fingerprint.h"
#include "nlohmann/json.hpp"
#include "tensors.h"

class Evidence {
public:
    Evidence(bool cheap, bool deep) : cheap_(cheap), deep_(deep) {}

    bool wants_any() const { return cheap_ || deep_; }
    Tensors * vision_layers() { return deep_ ? &vision_ : nullptr; }
    Tensors * text_layers() { return deep_ ? &text_ : nullptr; }

    // One tile as the vision graph got it.
    void add_pixels(const std::vector<float> & values, size_t height, size_t width) {
        pixels_.add("pixels", {1, 3, height, width}, values.data(), values.size(), *this);
    }

    // One tile after the projector.
    void add_embeddings(const float * values, size_t tokens, size_t width) {
        embed_.add("embed", {tokens, width}, values, tokens * width, *this);
    }

    // The first step's logits.
    void add_prefill(const float * values, size_t n_vocab) {
        prefill_.add("prefill", {n_vocab}, values, n_vocab, *this);
    }

    // protocol.py's Evidence.
    nlohmann::ordered_json json() const {
        return {{"pixels", pixels_.json()}, {"embed", embed_.json()}, {"prefill", prefill_.json()}};
    }

    // In the order of computation.
    std::vector<const Tensor *> tensors() const {
        std::vector<const Tensor *> all;
        for (const Tensors * some : {&pixels_.whole, &vision_, &embed_.whole, &text_, &prefill_.whole}) {
            for (const Tensor & tensor : some->all()) all.push_back(&tensor);
        }
        return all;
    }

private:
    struct Stage {
        Fingerprint fingerprint;
        std::vector<size_t> shape;
        Tensors whole;

        void add(const char * name, std::vector<size_t> piece, const float * values, size_t count, const Evidence & owner) {
            if (owner.cheap_) {
                fingerprint.add(values, count);
                if (shape.empty()) {
                    shape = piece;
                } else {
                    shape[0] += piece[0];
                }
            }
            if (owner.deep_) whole.append({name, std::move(piece), {values, values + count}});
        }

        nlohmann::ordered_json json() const { return fingerprint.json(shape); }
    };

    const bool cheap_;
    const bool deep_;
    Stage pixels_;
    Stage embed_;
    Stage prefill_;
    Tensors vision_;
    Tensors text_;
};
