// A text model and its mmproj under the contract's runtime, loaded once and warmed up.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "chunks.h"
#include "fault.h"
#include "hash/hash.h"
#include "llama-cpp.h"
#include "machine.h"
#include "mtmd-helper.h"
#include "mtmd.h"
#include "request.h"

// `kind`: the fault to throw when the file cannot be read.
inline std::string file_sha256(const std::string & path, const char * kind) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (file < 0 || fstat(file, &info) != 0 || info.st_size == 0) {
        const std::string why = file >= 0 && info.st_size == 0 ? "it is empty" : std::strerror(errno);
        if (file >= 0) close(file);
        throw Fault(kind, "cannot read " + path + ": " + why);
    }
    void * bytes = mmap(nullptr, (size_t) info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (bytes == MAP_FAILED) {
        throw Fault(kind, "cannot map " + path + ": " + std::strerror(errno));
    }
    const std::string digest = hash_sha256_hex(bytes, (size_t) info.st_size);
    munmap(bytes, (size_t) info.st_size);
    return digest;
}

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

    // Empties the KV cache, as the app does after each image.
    void clear() {
        llama_memory_clear(llama_get_memory(context_.get()), true);
        position_ = 0;
    }

    // Ids through the text model, a batch at a time.
    void decode(const std::vector<llama_token> & ids, bool logits_last) {
        for (size_t start = 0; start < ids.size(); start += (size_t) batch_) {
            const size_t count = std::min(ids.size() - start, (size_t) batch_);
            tokens_.n_tokens = (int) count;
            for (size_t i = 0; i < count; ++i) {
                tokens_.token[i] = ids[start + i];
                tokens_.pos[i] = position_ + (int) i;
                tokens_.n_seq_id[i] = 1;
                tokens_.seq_id[i][0] = 0;
                tokens_.logits[i] = logits_last && start + i + 1 == ids.size();
            }
            LlamaLog::forget();
            if (const int status = llama_decode(context_.get(), tokens_)) {
                throw Fault("decode", "llama_decode: " + std::to_string(status) + ": " + LlamaLog::reason());
            }
            position_ += (int) count;
        }
        llama_synchronize(context_.get());
    }

    // One tile's embeddings, valid until the next call.
    float * encode(const Chunk & chunk) {
        LlamaLog::forget();
        if (const int status = mtmd_encode_chunk(vision_.get(), chunk.tile)) {
            throw Fault("encode", "mtmd_encode_chunk: " + std::to_string(status) + ": " + LlamaLog::reason());
        }
        return mtmd_get_output_embd(vision_.get());
    }

    void decode_tile(const Chunk & chunk, float * embeddings) {
        llama_pos reached = position_;
        LlamaLog::forget();
        if (const int status = mtmd_helper_decode_image_chunk(
                vision_.get(), context_.get(), chunk.tile, embeddings, position_, 0, batch_, &reached, nullptr, nullptr)) {
            throw Fault("decode", "mtmd_helper_decode_image_chunk: " + std::to_string(status) + ": " + LlamaLog::reason());
        }
        llama_synchronize(context_.get());
        position_ = reached;
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
    void load_text(const Request & request) {
        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        LlamaLog::forget();
        text_.reset(llama_model_load_from_file(request.text_model_path.c_str(), params));
        if (!text_) {
            throw Fault("model_load", request.text_model_path + ": " + LlamaLog::reason());
        }
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
        decode({llama_vocab_is_eog(vocab(), 0) ? 1 : 0}, true);
        clear();
    }

    // On or off, never `auto`: what `auto` chooses may differ from machine to machine.
    static llama_flash_attn_type flash_attention(const Request & request) {
        return request.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }

    const int batch_;
    int position_ = 0;
    llama_model_ptr text_;
    llama_context_ptr context_;
    mtmd::context_ptr vision_;
    llama_batch tokens_{};
};
