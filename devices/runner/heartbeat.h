// protocol.py's Heartbeat, rewritten by a thread that does nothing else.
#pragma once

#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

class Heartbeat {
public:
    explicit Heartbeat(std::string path) : path_(std::move(path)), thread_([this] { beat(); }) {}

    ~Heartbeat() {
        {
            const std::lock_guard<std::mutex> hold(mutex_);
            done_ = true;
        }
        wake_.notify_one();
        thread_.join();
    }

    Heartbeat(const Heartbeat &) = delete;
    Heartbeat & operator=(const Heartbeat &) = delete;

    // `stage` must be a literal; the thread reads it later.
    void at(const char * stage) { stage_ = stage; }

    void at(const char * stage, int image) {
        image_ = image;
        stage_ = stage;
    }

private:
    void beat() {
        prctl(PR_SET_NAME, "heartbeat");
        std::unique_lock<std::mutex> hold(mutex_);
        for (long count = 0; !done_; ++count) {
            rewrite(count);
            wake_.wait_for(hold, std::chrono::milliseconds(500), [this] { return done_; });
        }
    }

    // A sign of life that cannot be written is no reason to stop: the results go to a file of
    // their own, and its writer does report a full disk.
    void rewrite(long count) const {
        const std::string part = path_ + ".part";
        FILE * file = fopen(part.c_str(), "w");
        if (!file) {
            return;
        }
        fprintf(file, "{\"beat\":%ld,\"pid\":%d,\"stage\":\"%s\",\"image\":%d}\n",
                count, (int) getpid(), stage_.load(), image_.load());
        if (fclose(file) == 0) {
            rename(part.c_str(), path_.c_str());
        }
    }

    const std::string path_;
    std::atomic<const char *> stage_{"start"};
    std::atomic<int> image_{-1};
    std::mutex mutex_;
    std::condition_variable wake_;
    bool done_ = false;
    std::thread thread_;
};
