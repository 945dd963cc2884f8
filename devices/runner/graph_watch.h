// What passes through ggml's graphs: callbacks that see every node before and after it is computed.
//
// A node is first asked about; one that is wanted cuts the graph there, so that its values can be
// read. Where nothing is wanted the whole graph is computed at once, as without a callback.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "layers.h"
#include "tensors.h"

// A node's values with its width last; all other dimensions become rows.
inline Tensor rows_of(const ggml_tensor * node, std::string name) {
    GGML_ASSERT(ggml_is_contiguous(node));
    const size_t width = (size_t) node->ne[0];
    Tensor rows{std::move(name), {(size_t) ggml_nrows(node), width}, std::vector<float>((size_t) ggml_nelements(node))};
    if (node->type == GGML_TYPE_F32) {
        ggml_backend_tensor_get(node, rows.values.data(), 0, ggml_nbytes(node));
        return rows;
    }
    std::vector<char> raw(ggml_nbytes(node));
    ggml_backend_tensor_get(node, raw.data(), 0, raw.size());
    ggml_get_type_traits(node->type)->to_float(raw.data(), rows.values.data(), ggml_nelements(node));
    return rows;
}

inline Tensor last_row(Tensor rows) {
    const size_t width = rows.shape[1];
    rows.values.erase(rows.values.begin(), rows.values.end() - (long) width);
    rows.shape[0] = 1;
    return rows;
}

// One run of the vision graph: what is wanted of it, what is put into it, and what was seen.
struct VisionLook {
    // Gets the pixel values, (3, height, width); null where they are not wanted.
    std::vector<float> * pixels = nullptr;
    // Gets the layers' outputs, in deep mode; null where they are not wanted.
    Tensors * layers = nullptr;
    // Values in place of libmtmd's own, from which the graph takes as many as it needs; null for none.
    const float * given = nullptr;
    size_t given_count = 0;

    size_t height = 0;
    size_t width = 0;
    bool found = false;

    // How many values the graph takes.
    size_t count() const { return 3 * height * width; }

    bool on_node(ggml_tensor * node, bool ask) {
        if (!ask) {
            layers->append(rows_of(node, *layers::of_vision_node(node->name)));
            return true;
        }
        if (!found && (pixels || given)) {
            // Before the first node is computed the input already holds its values.
            find_input(node);
        }
        return layers && layers::of_vision_node(node->name);
    }

private:
    void find_input(const ggml_tensor * node) {
        for (ggml_tensor * source : node->src) {
            if (source && std::strcmp(source->name, "inp_raw") == 0) {
                found = true;
                exchange(source);
            }
        }
    }

    void exchange(ggml_tensor * input) {
        width = (size_t) input->ne[0];
        height = (size_t) input->ne[1];
        if (given && given_count >= count()) {
            ggml_backend_tensor_set(input, given, 0, ggml_nbytes(input));
        }
        if (pixels) {
            pixels->resize((size_t) ggml_nelements(input));
            ggml_backend_tensor_get(input, pixels->data(), 0, ggml_nbytes(input));
        }
    }
};

// libmtmd's callback: sees the graphs that are run while a look is set.
class VisionWatch {
public:
    static bool on_node(ggml_tensor * node, bool ask, void * self) {
        VisionLook * look = static_cast<VisionWatch *>(self)->look;
        return look && look->on_node(node, ask);
    }

    VisionLook * look = nullptr;
};

// What the text model's graph says of its own settings.
struct GraphSettings {
    std::string cache_type_k;
    std::string cache_type_v;
    bool flash_attention = false;

    void look(const ggml_tensor * node) {
        flash_attention |= node->op == GGML_OP_FLASH_ATTN_EXT;
        if (std::strncmp(node->name, "cache_k_l", 9) == 0) cache_type_k = ggml_type_name(node->type);
        if (std::strncmp(node->name, "cache_v_l", 9) == 0) cache_type_v = ggml_type_name(node->type);
    }
};

// llama.cpp's callback.
class TextWatch {
public:
    static bool on_node(ggml_tensor * node, bool ask, void * self) {
        return static_cast<TextWatch *>(self)->see(node, ask);
    }

    // Both may be null: nothing is then looked at.
    GraphSettings * settings = nullptr;
    Tensors * layers = nullptr;
    int n_layer = 0;

private:
    bool see(ggml_tensor * node, bool ask) {
        if (ask) {
            if (settings) settings->look(node);
            return layers && !ggml_is_empty(node) && layers::of_text_node(node->name);
        }
        Tensor rows = rows_of(node, *layers::of_text_node(node->name));
        if (layers::is_reduced(node->name, n_layer)) {
            layers->replace(last_row(std::move(rows)));
        } else {
            layers->append(std::move(rows));
        }
        return true;
    }
};
