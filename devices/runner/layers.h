// The names of layer outputs: the table of harness/arms/layers.py.
#pragma once

#include <charconv>
#include <cstring>
#include <optional>
#include <string>

namespace layers {

// `attn_out-3` is the output of layer 3's attention.
inline std::optional<std::string> part_of(const char * tower, const char * node) {
    for (const auto & [prefix, part] : {std::pair{"attn_out-", "attention"}, std::pair{"ffn_out-", "ffn"}}) {
        const size_t length = std::strlen(prefix);
        if (std::strncmp(node, prefix, length) != 0) {
            continue;
        }
        const char * end = node + std::strlen(node);
        unsigned layer = 0;
        const auto read = std::from_chars(node + length, end, layer);
        if (read.ec == std::errc() && read.ptr == end) {
            return std::string(tower) + " layer " + std::to_string(layer) + " " + part;
        }
    }
    return std::nullopt;
}

inline std::optional<std::string> of_vision_node(const char * node) {
    if (std::strcmp(node, "pos_embed") == 0) return "vision patches";
    if (std::strcmp(node, "norm_b") == 0) return "vision norm";
    return part_of("vision", node);
}

inline std::optional<std::string> of_text_node(const char * node) {
    if (std::strcmp(node, "embd") == 0) return "text embeddings";
    if (std::strcmp(node, "result_norm") == 0) return "text norm";
    return part_of("text", node);
}

// Whether llama.cpp may have reduced the node's rows to those that give logits.
inline bool is_reduced(const char * node, int n_layer) {
    const std::string last = "-" + std::to_string(n_layer - 1);
    const size_t length = std::strlen(node);
    return std::strcmp(node, "result_norm") == 0 ||
           (length > last.size() && last == node + length - last.size());
}

}  // namespace layers
