// The request as protocol.py's Request writes it.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "fault.h"
#include "ggml.h"
#include "nlohmann/json.hpp"

constexpr int kProtocol = 3;

struct Decoding {
    double temperature;
    int top_k;
    double repeat_penalty;
    uint64_t seed;
    std::vector<std::string> stop;
};

struct ImageRequest {
    std::string case_id;
    int session;
    int position;
    std::string pixels_path;
    bool always;
    std::string trajectory_path;  // empty: not driven
};

struct Request {
    std::string text_model_path;
    std::string mmproj_path;
    std::string prompt;
    std::string marker;
    bool add_special;
    bool parse_special;
    int max_tokens;
    std::vector<std::string> labels;
    int top_k;
    Decoding decoding;
    int context;
    int batch;
    ggml_type cache_type_k;
    ggml_type cache_type_v;
    bool flash_attention;
    int threads;
    int vision_threads;
    bool single;
    std::string stop_path;       // empty: it cannot be stopped
    bool evidence;
    std::string tensors_folder;  // empty: no deep mode
    std::vector<ImageRequest> images;
};

inline ggml_type cache_type(const std::string & name) {
    for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
        if (name == ggml_type_name(type)) return type;
    }
    throw Fault("request", "no KV cache type " + name);
}

inline std::string path_or_empty(const nlohmann::json & value) {
    return value.is_null() ? std::string() : value.get<std::string>();
}

inline Decoding read_decoding(const nlohmann::json & json) {
    if (!json.at("seed").is_number_unsigned()) {
        throw Fault("request", "the seed " + json.at("seed").dump() + " is no 64-bit number");
    }
    Decoding decoding{json.at("temperature"), json.at("top_k"), json.at("repeat_penalty"), json.at("seed"), json.at("stop")};
    if (!(decoding.temperature >= 0) || decoding.top_k < 0 || !(decoding.repeat_penalty > 0)) {
        throw Fault("request", "temperature and top_k must be at least 0, repeat_penalty above 0");
    }
    return decoding;
}

inline ImageRequest read_image_request(const nlohmann::json & json) {
    return {json.at("case_id"), json.at("session"), json.at("position"), json.at("pixels_path"), json.at("always"),
            path_or_empty(json.at("trajectory_path"))};
}

inline Request read_request(const std::string & path) {
    std::ifstream file(path);
    if (!file) {
        throw Fault("request", "cannot read " + path);
    }
    try {
        const nlohmann::json json = nlohmann::json::parse(file);
        if (json.at("protocol").get<int>() != kProtocol) {
            throw Fault("request", "protocol " + json.at("protocol").dump() + ", this runner speaks " + std::to_string(kProtocol));
        }
        const nlohmann::json & runtime = json.at("runtime");
        const std::string backend = runtime.at("backend");
        if (backend != "cpu") {
            // Never a silent fall-back: what was asked for is what runs, or nothing does.
            throw Fault("request", "backend " + backend + " is not in this build, which has cpu");
        }
        const std::string tiling = runtime.at("tiling");
        if (tiling != "single" && tiling != "split") {
            throw Fault("request", "no tiling " + tiling);
        }
        Request request{
            json.at("text_model_path"), json.at("mmproj_path"), json.at("prompt"), json.at("marker"),
            json.at("add_special"), json.at("parse_special"), json.at("max_tokens"), json.at("labels"),
            json.at("top_k"), read_decoding(json.at("decoding")), runtime.at("context"), runtime.at("batch"),
            cache_type(runtime.at("cache_type_k")), cache_type(runtime.at("cache_type_v")),
            runtime.at("flash_attention"), runtime.at("threads"), runtime.at("vision_threads"),
            tiling == "single", path_or_empty(json.at("stop_path")), json.at("evidence"),
            path_or_empty(json.at("tensors_folder")), {}};
        if (request.context < 1 || request.batch < 1 || request.max_tokens < 1 || request.top_k < 0 ||
            request.threads < 0 || request.vision_threads < 1) {
            throw Fault("request", "context, batch, max_tokens and vision_threads must be at least 1, top_k and threads 0");
        }
        for (const nlohmann::json & image : json.at("images")) {
            request.images.push_back(read_image_request(image));
        }
        return request;
    } catch (const nlohmann::json::exception & error) {
        throw Fault("request", error.what());
    }
}
