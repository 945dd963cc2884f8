// Deep mode: one image's tensors by name, and the file that protocol.py's TensorRecords point into.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
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

class TensorFile {
public:
    // An empty path: there is no such file, and nothing may be appended.
    explicit TensorFile(const std::string & path) : path_(path) {
        if (path.empty()) {
            return;
        }
        file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (file_ < 0) {
            throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
        }
        end_ = (size_t) lseek(file_, 0, SEEK_END);
    }

    ~TensorFile() {
        if (file_ >= 0) close(file_);
    }

    TensorFile(const TensorFile &) = delete;
    TensorFile & operator=(const TensorFile &) = delete;

    // Appends the tensors; their TensorRecords.
    nlohmann::ordered_json append(const std::vector<const Tensor *> & tensors) {
        nlohmann::ordered_json records = nlohmann::ordered_json::array();
        for (const Tensor * tensor : tensors) {
            records.push_back({{"name", tensor->name}, {"shape", tensor->shape}, {"offset_bytes", end_}});
            write(tensor->values);
        }
        return records;
    }

private:
    void write(const std::vector<float> & values) {
        const char * bytes = reinterpret_cast<const char *>(values.data());
        const size_t size = values.size() * sizeof(float);
        for (size_t done = 0; done < size;) {
            const ssize_t wrote = ::write(file_, bytes + done, size - done);
            if (wrote < 0 && errno != EINTR) {
                throw std::runtime_error("cannot write " + path_ + ": " + std::strerror(errno));
            }
            done += wrote > 0 ? (size_t) wrote : 0;
        }
        end_ += size;
    }

    const std::string path_;
    int file_ = -1;
    size_t end_ = 0;
};
