// The on-phone runner: driftloop-runner REQUEST RESULTS HEARTBEAT
//
// Loads a text model and its mmproj once, answers the request's images one after another as the app
// does, and appends one line per image to RESULTS. protocol.py says what goes in and comes out.
//
// No thread pool is attached: like the app and like llama-cpp-python, it takes ggml's default.

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "chunks.h"
#include "fault.h"
#include "hash/hash.h"
#include "heartbeat.h"
#include "machine.h"
#include "model.h"
#include "request.h"
#include "results.h"
#include "step.h"

namespace {

class Stopwatch {
public:
    double ms() const {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_).count();
    }

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

mtmd::bitmap_ptr read_image(const Model & model, const std::string & path) {
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

// One request's images, and what they share.
class Run {
public:
    Run(const Request & request, Model & model, Heartbeat & heartbeat)
        : request_(request), model_(model), heartbeat_(heartbeat) {
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
        if (prompt.n_tokens() + 1 > (size_t) request_.context) {
            throw Fault("context_full", "the prompt has " + std::to_string(prompt.n_tokens()) +
                                            " tokens, the context holds " + std::to_string(request_.context));
        }
        prefill(prompt, record.timings);
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

    void prefill(const Prompt & prompt, TimingsMs & timings) {
        for (const Chunk & chunk : prompt.chunks) {
            float * embeddings = nullptr;
            if (chunk.tile) {
                heartbeat_.at("encode");
                Stopwatch encoding;
                embeddings = model_.encode(chunk);
                timings.encode.push_back(encoding.ms());
            }
            heartbeat_.at("prefill");
            Stopwatch filling;
            if (chunk.tile) {
                model_.decode_tile(chunk, embeddings);
            } else {
                model_.decode(chunk.ids, &chunk == &prompt.chunks.back());
            }
            timings.prefill += filling.ms();
        }
    }

    void generate(ImageRecord & record) {
        const int n_vocab = llama_vocab_n_tokens(model_.vocab());
        for (bool first = true;; first = false) {
            const Step step(model_.logits(), n_vocab);
            for (size_t i = 0; first && i < label_ids_.size(); ++i) {
                record.label_logprobs[request_.labels[i]] = step.logprob(label_ids_[i]);
            }
            const std::string spelled = piece(model_.vocab(), step.greedy());
            record.tokens.push_back({step.greedy(), spelled, step.logprob(step.greedy()), step.top(request_.top_k)});
            if (llama_vocab_is_eog(model_.vocab(), step.greedy())) {
                record.stop_reason = "eog";
                return;
            }
            record.text += spelled;
            if (record.tokens.size() == (size_t) request_.max_tokens) {
                record.stop_reason = "max_tokens";
                return;
            }
            if (model_.position() >= request_.context) {
                throw Fault("context_full", "the answer filled the context of " + std::to_string(request_.context));
            }
            Stopwatch decoding;
            model_.decode({step.greedy()}, true);
            record.timings.decode.push_back(decoding.ms());
        }
    }

    const Request & request_;
    Model & model_;
    Heartbeat & heartbeat_;
    std::vector<llama_token> label_ids_;
};

Json attestation(const Request & request, const Model & model, const std::string & text_sha256,
                 const std::string & mmproj_sha256, const std::vector<machine::Placement> & placement, double load_ms) {
    Json threads = Json::array();
    for (const machine::Placement & one : placement) {
        threads.push_back({{"name", one.name}, {"cpus_allowed", one.cpus_allowed}});
    }
    Json json;
    json["record"] = "attestation";
    json["protocol"] = kProtocol;
    json["llama_commit"] = DRIFTLOOP_LLAMA_COMMIT;
    json["compiler"] = __VERSION__;
    json["target"] = DRIFTLOOP_TARGET;
    json["variant"] = DRIFTLOOP_VARIANT;
    json["cpu_features_found"] = machine::cpu_features_found();
    json["cpu_features_used"] = machine::cpu_features_used();
    json["backends"] = machine::backends();
    json["threads"] = model.n_threads;
    json["vision_threads"] = model.n_vision_threads;
    json["placement"] = threads;
    json["text_model_sha256"] = text_sha256;
    json["mmproj_sha256"] = mmproj_sha256;
    json["load_ms"] = load_ms;
    json["pid"] = getpid();
    return json;
}

Results * g_results = nullptr;
size_t g_images_done = 0;

// llama.cpp calls this and then aborts, when an assertion of its own fails.
void on_llama_abort(const char * message) {
    const Fault fault("internal", message);
    g_results->finish(g_images_done, &fault);
}

void run(const std::string & request_path, Results & results, Heartbeat & heartbeat) {
    const Request request = read_request(request_path);
    heartbeat.at("hash");
    const std::string text_sha256 = file_sha256(request.text_model_path, "model_load");
    const std::string mmproj_sha256 = file_sha256(request.mmproj_path, "mmproj_load");
    heartbeat.at("load");
    machine::PlacementWatch placement;
    Stopwatch loading;
    Model model(request);
    const double load_ms = loading.ms();
    Run session(request, model, heartbeat);
    results.write(attestation(request, model, text_sha256, mmproj_sha256, placement.stop(), load_ms));

    for (const ImageRequest & image : request.images) {
        ImageRecord record;
        Stopwatch total;
        Json error;
        try {
            session.answer(image, (int) g_images_done, record);
        } catch (const Fault & fault) {
            error = fault_json(fault);
        }
        record.timings.total = total.ms();
        Json json = image_json(record);
        json["case_id"] = image.case_id;
        json["session"] = image.session;
        json["position"] = image.position;
        json["memory_peak_kib"] = machine::memory_kib("VmHWM");
        json["memory_kib"] = machine::memory_kib("VmRSS");
        json["error"] = error;
        results.write(json);
        ++g_images_done;
    }
    heartbeat.at("end");
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s REQUEST RESULTS HEARTBEAT\n", argv[0]);
        return 2;
    }
    prctl(PR_SET_NAME, "runner");
    try {
        Results results(argv[2]);
        Heartbeat heartbeat(argv[3]);
        LlamaLog::attach();
        g_results = &results;
        ggml_set_abort_callback(on_llama_abort);
        llama_backend_init();
        try {
            run(argv[1], results, heartbeat);
            results.finish(g_images_done, nullptr);
            return 0;
        } catch (const Fault & fault) {
            results.finish(g_images_done, &fault);
        } catch (const std::exception & error) {
            const Fault fault("internal", error.what());
            results.finish(g_images_done, &fault);
        }
    } catch (const std::exception & error) {
        fprintf(stderr, "%s\n", error.what());
    }
    return 1;
}
