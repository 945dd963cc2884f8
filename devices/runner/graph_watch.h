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

#include "driving.h"
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

// Measures a node's rows against the reference's, of `total` rows in all, and puts those in their
// place: what the next node reads.
inline void drive_rows(Drive & drive, const std::string & name, ggml_tensor * node, size_t first, size_t total) {
    GGML_ASSERT(ggml_is_contiguous(node) && node->type == GGML_TYPE_F32);
    GGML_ASSERT(ggml_backend_buffer_is_host(node->view_src ? node->view_src->buffer : node->buffer));
    const size_t width = (size_t) node->ne[0];
    const size_t rows = (size_t) ggml_nrows(node) - first;
    float * own = static_cast<float *>(node->data) + first * width;
    if (const float * reference = drive.measured.measure(drive.along, name, own, rows, width, total)) {
        std::copy_n(reference, rows * width, own);
    }
}

// One run of the vision graph: what is wanted of it, and what was seen.
struct VisionLook {
    // Gets the pixel values, (3, height, width); null where they are not wanted.
    std::vector<float> * pixels = nullptr;
    // Gets the layers' outputs, in deep mode; null where they are not wanted.
    Tensors * layers = nullptr;
    // Null where the candidate goes its own way.
    Drive * drive = nullptr;
    // Which tile this is, of the candidate's own and of the trajectory's alike.
    size_t tile = 0;

    size_t height = 0;
    size_t width = 0;
    bool found = false;

    // Whether the trajectory has no such tile: its pixel values are looked at and nothing is run.
    bool is_surplus() const { return found && drive && tile >= drive->tiles; }

    bool on_node(ggml_tensor * node, bool ask) {
        if (ask) {
            if (!found && (pixels || drive)) {
                // Before the first node is computed the input already holds its values.
                find_input(node);
            }
            return is_surplus() || ((layers || drive) && layers::of_vision_node(node->name));
        }
        if (is_surplus()) {
            return false;
        }
        const std::string name = *layers::of_vision_node(node->name);
        if (layers) layers->append(rows_of(node, name));
        if (drive) drive_rows(*drive, name, node, 0, (size_t) ggml_nrows(node) * drive->tiles);
        return true;
    }

private:
    void find_input(const ggml_tensor * node) {
        for (ggml_tensor * source : node->src) {
            if (source && std::strcmp(source->name, "inp_raw") == 0) {
                found = true;
                look_at(source);
            }
        }
    }

    void look_at(ggml_tensor * input) {
        width = (size_t) input->ne[0];
        height = (size_t) input->ne[1];
        if (pixels) {
            pixels->resize((size_t) ggml_nelements(input));
            ggml_backend_tensor_get(input, pixels->data(), 0, ggml_nbytes(input));
        }
        if (drive) put_in(input);
    }

    void put_in(ggml_tensor * input) {
        if (pixels) {
            drive->measured.measure(drive->along, "pixels", pixels->data(), 3 * height, width, drive->own_tiles * 3 * height);
        }
        const Reference * reference = drive->along.find("pixels");
        if (!reference || reference->shape != std::vector<size_t>{reference->shape[0], 3, height, width}) {
            return;
        }
        drive->tiles = reference->shape[0];
        if (tile < drive->tiles) {
            ggml_backend_tensor_set(input, reference->values + tile * 3 * height * width, 0, ggml_nbytes(input));
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

// One prompt on its way through the text model: what is wanted of it, and what was seen.
struct TextLook {
    // Gets the layers' outputs, in deep mode; null where they are not wanted.
    Tensors * layers = nullptr;
    // Null where the candidate goes its own way.
    Drive * drive = nullptr;
    // Of the prompt.
    size_t tokens = 0;
    size_t text_tokens = 0;

    bool wants(const ggml_tensor * node) const {
        return (layers || drive) && !ggml_is_empty(node) && layers::of_text_node(node->name);
    }

    // `reduced`: only the last token's row is told.
    void on_node(ggml_tensor * node, bool reduced) {
        const std::string name = *layers::of_text_node(node->name);
        const size_t rows = (size_t) ggml_nrows(node);
        if (name == "text layer 0 attention") seen_ += rows;
        if (layers && reduced) layers->replace(last_row(rows_of(node, name)));
        if (layers && !reduced) layers->append(rows_of(node, name));
        if (drive && !reduced) drive_rows(*drive, name, node, 0, name == "text embeddings" ? text_tokens : tokens);
        if (drive && reduced && seen_ == tokens) drive_rows(*drive, name, node, rows - 1, 1);
    }

private:
    // Tokens of the pieces that were computed or are being computed.
    size_t seen_ = 0;
};

// llama.cpp's callback: sees the graphs that are run while a look is set.
class TextWatch {
public:
    static bool on_node(ggml_tensor * node, bool ask, void * self) {
        return static_cast<TextWatch *>(self)->see(node, ask);
    }

    // Both may be null: nothing is then looked at.
    GraphSettings * settings = nullptr;
    TextLook * look = nullptr;
    int n_layer = 0;

private:
    bool see(ggml_tensor * node, bool ask) {
        if (ask) {
            if (settings) settings->look(node);
            return look && look->wants(node);
        }
        look->on_node(node, layers::is_reduced(node->name, n_layer));
        return true;
    }
};
