// What this process can tell about the machine it runs on: CPU, threads, memory, backends.
#pragma once

#include <dirent.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "ggml-backend.h"

namespace machine {

// The value after `key` and a colon in a /proc file, without surrounding blanks; empty without it.
inline std::string proc_value(const std::string & path, const std::string & key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        const size_t colon = line.find(':');
        if (colon == std::string::npos || line.find_last_not_of(" \t", colon - 1) + 1 != key.size() ||
            line.compare(0, key.size(), key) != 0) {
            continue;
        }
        const size_t begin = line.find_first_not_of(" \t", colon + 1);
        return begin == std::string::npos ? "" : line.substr(begin);
    }
    return "";
}

// `VmRSS` or `VmHWM` of this process in KiB.
inline long memory_kib(const std::string & key) {
    const std::string value = proc_value("/proc/self/status", key);
    return value.empty() ? 0 : std::stol(value);
}

inline int cores() {
    return std::max(1u, std::thread::hardware_concurrency());
}

// The app's rule where the contract says 0; on a lone core, one.
inline int text_threads(int asked) {
    return asked > 0 ? asked : std::min(std::clamp(cores() / 2, 2, 6), cores());
}

// ggml's threads wait for each other by spinning: with more of them than cores, each step takes
// many times as long, for the same numbers.
inline int vision_threads(int asked) {
    return std::min(asked, cores());
}

// CPU features in the kernel's words.
inline std::vector<std::string> cpu_features_found() {
    std::vector<std::string> found;
#if defined(__aarch64__)
    // From the auxiliary vector and not from /proc/cpuinfo: an emulator passes on its host's.
    const std::pair<unsigned long, const char *> hwcap[] = {
        {1UL << 0, "fp"},       {1UL << 1, "asimd"},   {1UL << 3, "aes"},      {1UL << 6, "sha2"},
        {1UL << 7, "crc32"},    {1UL << 8, "atomics"}, {1UL << 9, "fphp"},     {1UL << 10, "asimdhp"},
        {1UL << 12, "asimdrdm"}, {1UL << 20, "asimddp"}, {1UL << 22, "sve"},   {1UL << 23, "asimdfhm"},
    };
    const std::pair<unsigned long, const char *> hwcap2[] = {
        {1UL << 1, "sve2"}, {1UL << 13, "i8mm"}, {1UL << 14, "bf16"}, {1UL << 23, "sme"},
    };
    for (const auto & [bit, name] : hwcap) {
        if (getauxval(AT_HWCAP) & bit) found.emplace_back(name);
    }
    for (const auto & [bit, name] : hwcap2) {
        if (getauxval(AT_HWCAP2) & bit) found.emplace_back(name);
    }
#else
    std::istringstream words(proc_value("/proc/cpuinfo", "flags"));
    for (std::string word; words >> word;) found.push_back(word);
#endif
    std::sort(found.begin(), found.end());
    return found;
}

// What ggml's CPU backend was compiled to use, in ggml's words.
inline std::vector<std::string> cpu_features_used() {
    std::vector<std::string> used;
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t registry = device ? ggml_backend_dev_backend_reg(device) : nullptr;
    auto * features = registry ? reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_get_features")) : nullptr;
    if (features) {
        for (ggml_backend_feature * feature = features(registry); feature->name; ++feature) {
            used.emplace_back(feature->name);
        }
    }
    std::sort(used.begin(), used.end());
    return used;
}

inline std::vector<std::string> backends() {
    std::vector<std::string> names;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        names.emplace_back(ggml_backend_dev_name(ggml_backend_dev_get(i)));
    }
    return names;
}

struct Placement {
    std::string name;
    std::string cpus_allowed;
};

// ggml makes its threads for one graph and ends them after it. So this looks again and again while
// models load and warm up, and keeps the look that saw most of them.
class PlacementWatch {
public:
    PlacementWatch() : thread_([this] { watch(); }) {}
    ~PlacementWatch() { stop(); }
    PlacementWatch(const PlacementWatch &) = delete;
    PlacementWatch & operator=(const PlacementWatch &) = delete;

    std::vector<Placement> stop() {
        if (thread_.joinable()) {
            done_ = true;
            thread_.join();
        }
        return fullest_;
    }

private:
    void watch() {
        prctl(PR_SET_NAME, kName);
        while (!done_) {
            std::vector<Placement> seen = look();
            if (seen.size() > fullest_.size()) {
                fullest_ = std::move(seen);
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

    static std::vector<Placement> look() {
        std::vector<Placement> seen;
        DIR * folder = opendir("/proc/self/task");
        if (!folder) {
            return seen;
        }
        while (const dirent * entry = readdir(folder)) {
            const std::string status = std::string("/proc/self/task/") + entry->d_name + "/status";
            Placement one{proc_value(status, "Name"), proc_value(status, "Cpus_allowed_list")};
            if (!one.cpus_allowed.empty() && one.name != kName) {
                seen.push_back(std::move(one));
            }
        }
        closedir(folder);
        return seen;
    }

    static constexpr const char * kName = "placement";
    std::atomic<bool> done_{false};
    std::vector<Placement> fullest_;
    std::thread thread_;
};

}  // namespace machine
