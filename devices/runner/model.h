// A text model and its mmproj under the contract's runtime, loaded once and warmed up.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "chunks.h"
#include "fault.h"
#include "graph_watch.h"
#include "llama-cpp.h"
#include "machine.h"
#include "mtmd-helper.h"
#include "mtmd.h"
#include "request.h"

class Model {
public:
    explicit Model(const Request & request)
        : n_threads(machine::text_threads(request.threads)),
          n_vision_threads(machine::vision_threads(request.vision_threads)),
          batch_(request.batch) {
        load_text(request);
        make_context(request);
        load_mmproj(request);
        warm_up();
    }

    ~Model() { llama_batch_free(tokens_); }
    Model(const Model &) = delete;
    Model & operator=(const Model &) = delete;

    const int n_threads;
    const int n_vision_threads;

    const llama_vocab * vocab() const { return llama_model_get_vocab(text_.get()); }
    const mtmd_context * vision() const { return vision_.get(); }
    int position() const { return position_; }
    size_t embedding_width() const { return (size_t) llama_model_n_embd_inp(text_.get()); }

    // protocol.py's RunSettings, as far as llama.cpp knows them: from its context, and from the
    // graph that it ran to warm up.
    nlohmann::ordered_json settings() const {
        return {{"context", llama_n_ctx(context_.get())},
                {"batch", llama_n_batch(context_.get())},
                {"micro_batch", llama_n_ubatch(context_.get())},
                {"cache_type_k", in_graph_.cache_type_k},
                {"cache_type_v", in_graph_.cache_type_v},
                {"flash_attention", in_graph_.flash_attention}};
    }

    // What sees the text model's graphs from now on; null for nobody.
    void watch_text(TextLook * look) { text_watch_.look = look; }

    // Empties the KV cache, as the app does after each image.
    void clear() {
        llama_memory_clear(llama_get_memory(context_.get()), true);
        position_ = 0;
    }

    // Ids through the text model, a batch at a time.
    void decode(const std::vector<llama_token> & ids, bool logits_last) {
        in_batches(ids.size(), logits_last, [&](llama_batch & batch, size_t start) {
            std::copy_n(ids.data() + start, batch.n_tokens, batch.token);
        });
    }

    // The same for embeddings, (count, width), in the place of image tokens.
    void decode_rows(float * rows, size_t count, bool logits_last) {
        in_batches(count, logits_last, [&](llama_batch & batch, size_t start) {
            batch.token = nullptr;
            batch.embd = rows + start * embedding_width();
        });
    }

    // One tile's embeddings, valid until the next call; null where `look`, which sees the graph on the
    // way, left it at the pixel values.
    float * encode(const mtmd_input_chunk * tile, VisionLook & look) {
        LlamaLog::forget();
        vision_watch_.look = &look;
        const int status = mtmd_encode_chunk(vision_.get(), tile);
        vision_watch_.look = nullptr;
        if (status) {
            throw Fault("encode", "mtmd_encode_chunk: " + std::to_string(status) + ": " + LlamaLog::reason());
        }
        return look.is_surplus() ? nullptr : mtmd_get_output_embd(vision_.get());
    }

    // The last token's logits, one per id of the vocabulary.
    const float * logits() const {
        const float * values = llama_get_logits_ith(context_.get(), -1);
        if (!values) {
            throw Fault("decode", "llama.cpp gave no logits");
        }
        return values;
    }

private:
    // `fill` puts what starts at its second argument into a batch whose length is set.
    template <typename Fill>
    void in_batches(size_t count, bool logits_last, Fill fill) {
        for (size_t start = 0; start < count; start += (size_t) batch_) {
            llama_batch batch = tokens_;
            batch.n_tokens = (int) std::min(count - start, (size_t) batch_);
            for (int i = 0; i < batch.n_tokens; ++i) {
                batch.pos[i] = position_ + i;
                batch.n_seq_id[i] = 1;
                batch.seq_id[i][0] = 0;
                batch.logits[i] = logits_last && start + (size_t) i + 1 == count;
            }
            fill(batch, start);
            LlamaLog::forget();
            if (const int status = llama_decode(context_.get(), batch)) {
                throw Fault("decode", "llama_decode: " + std::to_string(status) + ": " + LlamaLog::reason());
            }
            position_ += batch.n_tokens;
        }
        llama_synchronize(context_.get());
    }

    void load_text(const Request & request) {
        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        LlamaLog::forget();
        text_.reset(llama_model_load_from_file(request.text_model_path.c_str(), params));
        if (!text_) {
            throw Fault("model_load", request.text_model_path + ": " + LlamaLog::reason());
        }
        text_watch_.n_layer = llama_model_n_layer(text_.get());
    }

    void make_context(const Request & request) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = (uint32_t) request.context;
        params.n_batch = (uint32_t) request.batch;
        params.n_threads = n_threads;
        params.n_threads_batch = n_threads;
        params.type_k = request.cache_type_k;
        params.type_v = request.cache_type_v;
        params.flash_attn_type = flash_attention(request);
        params.cb_eval = TextWatch::on_node;
        params.cb_eval_user_data = &text_watch_;
        LlamaLog::forget();
        context_.reset(llama_init_from_model(text_.get(), params));
        if (!context_) {
            throw Fault("context", LlamaLog::reason());
        }
        tokens_ = llama_batch_init(batch_, 0, 1);
    }

    void load_mmproj(const Request & request) {
        mtmd_context_params params = mtmd_context_params_default();
        params.use_gpu = false;
        params.print_timings = false;
        params.n_threads = n_vision_threads;
        params.media_marker = request.marker.c_str();
        params.flash_attn_type = flash_attention(request);
        params.cb_eval = VisionWatch::on_node;
        params.cb_eval_user_data = &vision_watch_;
        LlamaLog::forget();
        vision_.reset(mtmd_init_from_file(request.mmproj_path.c_str(), text_.get(), params));
        if (!vision_) {
            throw Fault("mmproj_load", request.mmproj_path + ": " + LlamaLog::reason());
        }
        if (!mtmd_support_vision(vision_.get())) {
            throw Fault("mmproj_load", request.mmproj_path + ": it has no vision tower");
        }
    }

    // Reads the weights in before the first image is timed, as llama.cpp's own tools do; libmtmd
    // has warmed itself up.
    void warm_up() {
        text_watch_.settings = &in_graph_;
        decode({llama_vocab_is_eog(vocab(), 0) ? 1 : 0}, true);
        text_watch_.settings = nullptr;
        clear();
    }

    // On or off, never `auto`: what `auto` chooses may differ from machine to machine.
    static llama_flash_attn_type flash_attention(const Request & request) {
        return request.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }

    const int batch_;
    int position_ = 0;
    GraphSettings in_graph_;
    // Before the contexts, which call them.
    TextWatch text_watch_;
    VisionWatch vision_watch_;
    llama_model_ptr text_;
    llama_context_ptr context_;
    mtmd::context_ptr vision_;
    llama_batch tokens_{};
};
