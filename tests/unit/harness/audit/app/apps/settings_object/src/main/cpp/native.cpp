#include <jni.h>
#include "llama.h"
#include "mtmd.h"
#include "mtmd-helper.h"

struct Session {
    llama_model *model;
    llama_context *ctx;
    mtmd_context *vision;
    llama_sampler *sampler;
    int batch;
};

static llama_context_params context_params(int context, int batch, ggml_type cache, bool flash, int threads) {
    llama_context_params p = llama_context_default_params();
    p.n_ctx = context;
    p.n_batch = batch;
    p.type_k = cache;
    p.type_v = cache;
    p.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.n_threads = threads;
    return p;
}

extern "C" JNIEXPORT jlong JNICALL
Java_net_settings_Native_open(JNIEnv *env, jclass, jstring model, jstring mmproj, jint context, jint batch,
                              jint cache, jboolean flash, jint threads, jint vision_threads) {
    auto *s = new Session();
    llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    s->model = llama_model_load_from_file(env->GetStringUTFChars(model, nullptr), mp);
    s->ctx = llama_init_from_model(s->model, context_params(context, batch, (ggml_type) cache, flash, threads));
    mtmd_context_params vp = mtmd_context_params_default();
    vp.use_gpu = false;
    vp.n_threads = vision_threads;
    s->vision = mtmd_init_from_file(env->GetStringUTFChars(mmproj, nullptr), s->model, vp);
    s->sampler = llama_sampler_init_greedy();
    s->batch = batch;
    return reinterpret_cast<jlong>(s);
}

extern "C" JNIEXPORT void JNICALL
Java_net_settings_Native_start(JNIEnv *env, jclass, jlong handle, jbyteArray rgb, jint width, jint height, jstring prompt) {
    auto *s = reinterpret_cast<Session *>(handle);
    auto *bytes = env->GetByteArrayElements(rgb, nullptr);
    mtmd_bitmap *bitmap = mtmd_bitmap_init(width, height, reinterpret_cast<unsigned char *>(bytes));
    mtmd_input_text text = {.text = env->GetStringUTFChars(prompt, nullptr), .add_special = true, .parse_special = true};
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    const mtmd_bitmap *bitmaps[] = {bitmap};
    mtmd_tokenize(s->vision, chunks, &text, bitmaps, 1);
    llama_pos past = 0;
    mtmd_helper_eval_chunks(s->vision, s->ctx, chunks, 0, 0, s->batch, true, &past);
}

extern "C" JNIEXPORT jstring JNICALL
Java_net_settings_Native_next(JNIEnv *env, jclass, jlong handle) {
    auto *s = reinterpret_cast<Session *>(handle);
    llama_token token = llama_sampler_sample(s->sampler, s->ctx, -1);
    if (llama_vocab_is_eog(llama_model_get_vocab(s->model), token)) return nullptr;
    char piece[64] = {0};
    llama_token_to_piece(llama_model_get_vocab(s->model), token, piece, sizeof(piece), 0, true);
    llama_decode(s->ctx, llama_batch_get_one(&token, 1));
    return env->NewStringUTF(piece);
}

extern "C" JNIEXPORT void JNICALL
Java_net_settings_Native_forget(JNIEnv *, jclass, jlong handle) {
    llama_memory_clear(llama_get_memory(reinterpret_cast<Session *>(handle)->ctx), true);
}
