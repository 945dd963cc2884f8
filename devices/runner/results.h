// The results file: one whole line per record, in the kernel's hands when `write` returns.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "driving.h"
#include "evidence.h"
#include "fault.h"
#include "nlohmann/json.hpp"

using Json = nlohmann::ordered_json;

struct TokenLogprob {
    int id;
    double logprob;
};

struct TokenRecord {
    int id;
    std::string piece;
    double logprob;
    std::vector<TokenLogprob> top;
};

struct TimingsMs {
    double image_decode = 0;
    double tokenize = 0;
    std::vector<double> encode;
    double prefill = 0;
    std::vector<double> decode;
    double total = 0;
};

// protocol.py's ImageResult, filled step by step; what is known stays when a step fails.
struct ImageRecord {
    explicit ImageRecord(const Evidence & evidence) : evidence(evidence) {}

    Evidence evidence;
    DrivenLayers driven;
    std::string pixels_sha256;
    bool tiled = false;
    int rows = 0;
    int columns = 0;
    size_t image_tokens = 0;
    std::vector<int> prompt_ids;
    std::vector<TokenRecord> tokens;
    std::map<std::string, double> label_logprobs;
    std::string text;
    std::string stop_reason = "error";
    TimingsMs timings;
};

inline Json fault_json(const Fault & fault) {
    return {{"kind", fault.kind}, {"detail", fault.what()}};
}

inline Json image_json(const ImageRecord & image) {
    Json tokens = Json::array();
    for (const TokenRecord & token : image.tokens) {
        Json top = Json::array();
        for (const TokenLogprob & rival : token.top) {
            top.push_back({{"id", rival.id}, {"logprob", rival.logprob}});
        }
        tokens.push_back({{"id", token.id}, {"piece", token.piece}, {"logprob", token.logprob}, {"top", top}});
    }
    const TimingsMs & ms = image.timings;
    Json json;
    json["record"] = "image";
    json["pixels_sha256"] = image.pixels_sha256.empty() ? Json() : Json(image.pixels_sha256);
    json["grid"] = image.tiled ? Json::array({image.rows, image.columns}) : Json();
    json["image_tokens"] = image.tiled ? Json(image.image_tokens) : Json();
    json["prompt_ids"] = image.prompt_ids;
    json["tokens"] = tokens;
    json["label_logprobs"] = image.label_logprobs;
    json["evidence"] = image.evidence.json();
    json["driven"] = image.driven.json();
    json["text"] = image.text;
    json["stop_reason"] = image.stop_reason;
    json["timings_ms"] = {{"image_decode", ms.image_decode}, {"tokenize", ms.tokenize}, {"encode", ms.encode},
                          {"prefill", ms.prefill}, {"decode", ms.decode}, {"total", ms.total}};
    return json;
}

class Results {
public:
    explicit Results(const std::string & path)
        : file_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
        if (file_ < 0) {
            throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
        }
    }
    ~Results() { close(file_); }
    Results(const Results &) = delete;
    Results & operator=(const Results &) = delete;

    // ASCII only, so that a reader may cut anywhere. Bytes that are not UTF-8, as single pieces of
    // a longer character are not, become U+FFFD.
    void write(const Json & record) {
        const std::string line = record.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
        for (size_t done = 0; done < line.size();) {
            const ssize_t wrote = ::write(file_, line.data() + done, line.size() - done);
            if (wrote < 0 && errno != EINTR) {
                throw std::runtime_error(std::string("cannot write the results: ") + std::strerror(errno));
            }
            done += wrote > 0 ? (size_t) wrote : 0;
        }
    }

    void finish(size_t images, const Fault * fault) {
        write({{"record", "finished"}, {"images", images}, {"error", fault ? fault_json(*fault) : Json()}});
    }

private:
    int file_;
};
