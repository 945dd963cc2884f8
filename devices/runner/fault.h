// Faults with a kind, as protocol.py's RunnerFault, and the reason llama.cpp logged for the last one.
#pragma once

#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "ggml.h"
#include "llama.h"
#include "mtmd-helper.h"

struct Fault : std::runtime_error {
    Fault(std::string kind, const std::string & detail)
        : std::runtime_error(detail), kind(std::move(kind)) {}
    std::string kind;
};

// llama.cpp says why something failed only in its log. Keeps the first error since `forget`, which
// is the cause; the errors after it are what followed from it. All warnings go to stderr as well.
class LlamaLog {
public:
    static void attach() {
        llama_log_set(receive, nullptr);
        mtmd_helper_log_set(receive, nullptr);
    }

    static void forget() {
        const std::lock_guard<std::mutex> hold(lock());
        first().clear();
    }

    static std::string reason() {
        const std::lock_guard<std::mutex> hold(lock());
        return first().empty() ? "no reason logged" : first();
    }

private:
    static void receive(ggml_log_level level, const char * text, void *) {
        if (level != GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_ERROR) {
            return;
        }
        fputs(text, stderr);
        const std::lock_guard<std::mutex> hold(lock());
        if (level == GGML_LOG_LEVEL_ERROR && first().empty()) {
            first() = text;
            while (!first().empty() && first().back() == '\n') {
                first().pop_back();
            }
        }
    }

    static std::mutex & lock() {
        static std::mutex mutex;
        return mutex;
    }

    static std::string & first() {
        static std::string text;
        return text;
    }
};
