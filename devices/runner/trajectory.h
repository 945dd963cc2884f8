// A reference's trajectory, as protocol.py describes it: a safetensors file, mapped.
//
//     8 bytes        the header's length, little-endian
//     the header     JSON: {"__metadata__": {...}, NAME: {"dtype", "shape", "data_offsets"}, ...}
//     the values     where `data_offsets` says, counted from the header's end
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "fault.h"
#include "files.h"
#include "nlohmann/json.hpp"

// One output of the reference; its width last, all other axes are rows.
struct Reference {
    std::vector<size_t> shape;
    size_t rows = 1;
    size_t width = 0;
    const float * values = nullptr;
};

class Trajectory {
public:
    explicit Trajectory(const std::string & path) : path_(path), file_(path, "trajectory") {
        uint64_t length = 0;
        if (file_.size() < sizeof(length)) {
            refuse("it is cut short");
        }
        std::memcpy(&length, file_.data(), sizeof(length));
        if (length > file_.size() - sizeof(length)) {
            refuse("its header is longer than the file");
        }
        const char * header = file_.data() + sizeof(length);
        values_ = header + length;
        value_bytes_ = file_.size() - sizeof(length) - length;
        try {
            read(nlohmann::json::parse(header, values_));
        } catch (const nlohmann::json::exception &) {
            refuse("its header cannot be read");
        }
    }

    // Null where the reference has no such output.
    const Reference * find(const std::string & name) const {
        const auto found = outputs_.find(name);
        return found == outputs_.end() ? nullptr : &found->second;
    }

    // As evaluated, each image token -1.
    const std::vector<int> & prompt_ids() const { return prompt_ids_; }

    [[noreturn]] void refuse(const std::string & why) const {
        throw Fault("trajectory", path_ + " is no trajectory that can be followed: " + why);
    }

private:
    void read(const nlohmann::json & header) {
        for (const auto & [name, entry] : header.items()) {
            if (name == "__metadata__") {
                prompt_ids_ = nlohmann::json::parse(entry.at("prompt_ids").get<std::string>()).get<std::vector<int>>();
            } else {
                outputs_[name] = output(name, entry);
            }
        }
        if (prompt_ids_.empty()) {
            refuse("it has no prompt ids");
        }
    }

    Reference output(const std::string & name, const nlohmann::json & entry) const {
        if (entry.at("dtype").get<std::string>() != "F32") {
            refuse("'" + name + "' is " + entry.at("dtype").get<std::string>() + ", not F32");
        }
        Reference found;
        found.shape = entry.at("shape").get<std::vector<size_t>>();
        const auto [begin, end] = entry.at("data_offsets").get<std::pair<size_t, size_t>>();
        // Checked before it is multiplied, as a damaged size may be any number.
        size_t left = value_bytes_ / sizeof(float);
        for (size_t length : found.shape) left = length == 0 ? 0 : left / length;
        if (found.shape.empty() || left == 0 || begin > end || end > value_bytes_) {
            refuse("'" + name + "' does not lie within the file");
        }
        found.width = found.shape.back();
        for (size_t i = 0; i + 1 < found.shape.size(); ++i) found.rows *= found.shape[i];
        if (end - begin != found.rows * found.width * sizeof(float)) {
            refuse("'" + name + "' has another size than its shape");
        }
        if (reinterpret_cast<uintptr_t>(values_ + begin) % alignof(float) != 0) {
            refuse("'" + name + "' is not aligned");
        }
        found.values = reinterpret_cast<const float *>(values_ + begin);
        return found;
    }

    const std::string path_;
    const MappedFile file_;
    const char * values_ = nullptr;
    size_t value_bytes_ = 0;
    std::map<std::string, Reference> outputs_;
    std::vector<int> prompt_ids_;
};
