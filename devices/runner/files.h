// Whole files of the request: a model's hash, and values that are put in.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "fault.h"
#include "hash/hash.h"

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

// Little-endian float32 without a header.
inline std::vector<float> read_floats(const std::string & path, const char * kind) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const long size = file ? (long) file.tellg() : -1;
    if (size <= 0 || size % (long) sizeof(float) != 0) {
        throw Fault(kind, "cannot read " + path + " as float32 values");
    }
    std::vector<float> values((size_t) size / sizeof(float));
    file.seekg(0);
    if (!file.read(reinterpret_cast<char *>(values.data()), size)) {
        throw Fault(kind, "cannot read " + path);
    }
    return values;
}
