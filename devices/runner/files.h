// Whole files of the request, mapped: models, which are hashed, and trajectories.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "fault.h"
#include "hash/hash.h"

class MappedFile {
public:
    // `kind`: the fault to throw when the file cannot be read.
    MappedFile(const std::string & path, const char * kind) {
        const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        struct stat info {};
        if (file < 0 || fstat(file, &info) != 0 || info.st_size == 0) {
            const std::string why = file >= 0 && info.st_size == 0 ? "it is empty" : std::strerror(errno);
            if (file >= 0) close(file);
            throw Fault(kind, "cannot read " + path + ": " + why);
        }
        size_ = (size_t) info.st_size;
        bytes_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        close(file);
        if (bytes_ == MAP_FAILED) {
            throw Fault(kind, "cannot map " + path + ": " + std::strerror(errno));
        }
    }

    ~MappedFile() { munmap(bytes_, size_); }
    MappedFile(const MappedFile &) = delete;
    MappedFile & operator=(const MappedFile &) = delete;

    const char * data() const { return static_cast<const char *>(bytes_); }
    size_t size() const { return size_; }

private:
    void * bytes_ = nullptr;
    size_t size_ = 0;
};

inline std::string file_sha256(const std::string & path, const char * kind) {
    const MappedFile file(path, kind);
    return hash_sha256_hex(file.data(), file.size());
}
