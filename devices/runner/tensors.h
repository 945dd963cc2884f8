// Deep mode: one image's tensors by name, and the files that protocol.py's TensorRecords point into.
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

struct Tensor {
    std::string name;
    std::vector<size_t> shape;
    std::vector<float> values;
};

// In the order in which they first came.
class Tensors {
public:
    // What comes under a name again goes on along the first axis.
    void append(Tensor more) {
        Tensor * known = find(more.name);
        if (!known) {
            all_.push_back(std::move(more));
            return;
        }
        known->shape[0] += more.shape[0];
        known->values.insert(known->values.end(), more.values.begin(), more.values.end());
    }

    // What comes under a name again takes the place of what was there.
    void replace(Tensor by) {
        Tensor * known = find(by.name);
        if (known) {
            *known = std::move(by);
        } else {
            all_.push_back(std::move(by));
        }
    }

    const std::vector<Tensor> & all() const { return all_; }

private:
    Tensor * find(const std::string & name) {
        const auto found = std::find_if(all_.begin(), all_.end(), [&](const Tensor & one) { return one.name == name; });
        return found == all_.end() ? nullptr : &*found;
    }

    std::vector<Tensor> all_;
};

class TensorFolder {
public:
    // An empty path: there is no such folder, and nothing may be written.
    explicit TensorFolder(const std::string & path) : path_(path) {
        if (!path.empty()) std::filesystem::create_directories(path);
    }

    // Until at most one file lies here: the host fetches and removes them.
    void wait() const {
        using namespace std::chrono;
        const auto limit = steady_clock::now() + kLimit;
        while (!path_.empty() && std::distance(std::filesystem::directory_iterator(path_), {}) > 1) {
            if (steady_clock::now() > limit) {
                throw std::runtime_error("nobody has fetched the tensors in " + path_ + " for " +
                                         std::to_string(kLimit.count()) + " s");
            }
            std::this_thread::sleep_for(milliseconds(10));
        }
    }

    // Writes one image's tensors into a file of their own; their TensorRecords.
    nlohmann::ordered_json write(const std::string & name, const std::vector<const Tensor *> & tensors) const {
        nlohmann::ordered_json records = nlohmann::ordered_json::array();
        if (path_.empty()) {
            return records;
        }
        std::ofstream file;
        file.exceptions(std::ios::failbit | std::ios::badbit);
        file.open(path_ + "/" + name, std::ios::binary);
        size_t end = 0;
        for (const Tensor * tensor : tensors) {
            const size_t size = tensor->values.size() * sizeof(float);
            records.push_back({{"name", tensor->name}, {"shape", tensor->shape}, {"offset_bytes", end}});
            file.write(reinterpret_cast<const char *>(tensor->values.data()), (std::streamsize) size);
            end += size;
        }
        file.close();
        return records;
    }

private:
    static constexpr std::chrono::seconds kLimit{600};

    const std::string path_;
};
