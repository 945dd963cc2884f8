// The on-phone runner: driftloop-runner REQUEST RESULTS HEARTBEAT
//
// Loads a text model and its mmproj once, answers the request's images one after another as the app
// does, and appends one line per image to RESULTS. protocol.py says what goes in and comes out.
//
// No thread pool is attached: like the app and like llama-cpp-python, it takes ggml's default.

#include <unistd.h>

#include <string>
#include <vector>

#include "fault.h"
#include "files.h"
#include "heartbeat.h"
#include "machine.h"
#include "model.h"
#include "request.h"
#include "results.h"
#include "session.h"
#include "tensors.h"

namespace {

// protocol.py's RunSettings: what llama.cpp tells, and what the runner itself keeps to.
Json settings(const Request & request, const Model & model) {
    Json json = model.settings();
    json["max_tokens"] = request.max_tokens;
    json["decoding"] = {{"temperature", request.decoding.temperature},
                        {"top_k", request.decoding.top_k},
                        {"repeat_penalty", request.decoding.repeat_penalty},
                        {"seed", request.decoding.seed},
                        {"stop", request.decoding.stop}};
    return json;
}

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
    json["settings"] = settings(request, model);
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

// Whether the host wants no more than the images that are always run.
bool is_stopped(const Request & request) {
    return !request.stop_path.empty() && access(request.stop_path.c_str(), F_OK) == 0;
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
    Session session(request, model, heartbeat);
    const TensorFolder tensors(request.tensors_folder);
    results.write(attestation(request, model, text_sha256, mmproj_sha256, placement.stop(), load_ms));

    for (size_t index = 0; index < request.images.size(); ++index) {
        const ImageRequest & image = request.images[index];
        if (!image.always && is_stopped(request)) {
            continue;
        }
        tensors.wait();
        ImageRecord record(Evidence(request.evidence, !request.tensors_folder.empty()));
        Stopwatch total;
        Json error;
        try {
            session.answer(image, (int) index, record);
        } catch (const Fault & fault) {
            error = fault_json(fault);
        }
        record.timings.total = total.ms();
        Json json = image_json(record);
        json["case_id"] = image.case_id;
        json["session"] = image.session;
        json["position"] = image.position;
        json["tensors"] = tensors.write(std::to_string(image.session) + "-" + std::to_string(image.position),
                                        record.evidence.tensors());
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
