#include <jni.h>
#include <android/bitmap.h>
#include "engine.h"
#include "mtmd-helper.h"

static constexpr const char *OPEN = "<|im_start|>user\n";
static constexpr const char *CLOSE = "<end_of_utterance>\nAssistant:";

static std::string wrapped(const std::string &question) {
    std::string prompt;
    prompt += OPEN;
    prompt += mtmd_default_marker();
    prompt += question;
    prompt += CLOSE;
    return prompt;
}

static std::vector<uint8_t> rgb_of(JNIEnv *env, jobject picture, AndroidBitmapInfo &info) {
    void *pixels;
    AndroidBitmap_getInfo(env, picture, &info);
    AndroidBitmap_lockPixels(env, picture, &pixels);
    std::vector<uint8_t> rgb;
    rgb.reserve(info.width * info.height * 3);
    const uint8_t *bytes = static_cast<const uint8_t *>(pixels);
    for (uint32_t i = 0; i < info.width * info.height; ++i) {
        rgb.push_back(bytes[i * 4 + 2]);
        rgb.push_back(bytes[i * 4 + 1]);
        rgb.push_back(bytes[i * 4]);
    }
    AndroidBitmap_unlockPixels(env, picture);
    return rgb;
}

bool Engine::open(const char *model_path, const char *projector_path, int context) {
    auto model_params = llama_model_default_params();
    model_params.n_gpu_layers = 99;
    model_ = llama_model_load_from_file(model_path, model_params);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = context;
    params.n_batch = 64;
    params.n_threads = std::clamp((int) std::thread::hardware_concurrency() / 2, 2, 6);
    ctx_ = llama_init_from_model(model_, params);
    auto vision = mtmd_context_params_default();
    vision.n_threads = 4;
    vision_ = mtmd_init_from_file(projector_path, model_, vision);
    sampler_ = llama_sampler_init_greedy();
    return ctx_ && vision_;
}

std::string Engine::generate(llama_pos past, int budget) {
    std::string text;
    while (past < budget) {
        const llama_token token = llama_sampler_sample(sampler_, ctx_, -1);
        if (llama_vocab_is_eog(llama_model_get_vocab(model_), token)) break;
        text += common_token_to_piece(ctx_, token);
        llama_token next = token;
        if (llama_decode(ctx_, llama_batch_get_one(&next, 1))) break;
        past++;
    }
    return text;
}

std::string Engine::describe(JNIEnv *env, jobject picture, const std::string &question) {
    AndroidBitmapInfo info;
    auto rgb = rgb_of(env, picture, info);
    mtmd::bitmap bitmap(mtmd_bitmap_init(info.width, info.height, rgb.data()));
    const std::string prompt = wrapped(question);
    mtmd_input_text text{prompt.c_str(), true, false};
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    std::vector<const mtmd_bitmap *> bitmaps;
    bitmaps.push_back(bitmap.ptr.get());
    mtmd_tokenize(vision_, chunks, &text, bitmaps.data(), bitmaps.size());
    llama_pos past = 0;
    mtmd_helper_eval_chunks(vision_, ctx_, chunks, 0, 0, 64, true, &past);
    return generate(past, kBudget);
}
