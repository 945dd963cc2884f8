#pragma once
#include <string>
#include <vector>
#include "llama.h"
#include "mtmd.h"

class Engine {
public:
    bool open(const char *model_path, const char *projector_path, int context = 768);
    std::string describe(JNIEnv *env, jobject picture, const std::string &question);

private:
    std::string generate(llama_pos past, int budget);
    llama_model *model_ = nullptr;
    llama_context *ctx_ = nullptr;
    mtmd_context *vision_ = nullptr;
    llama_sampler *sampler_ = nullptr;
    static constexpr int kBudget = 24;
};
