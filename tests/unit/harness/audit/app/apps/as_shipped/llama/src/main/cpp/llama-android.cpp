#include <android/log.h>
#include <jni.h>
#include <unistd.h>
#include <algorithm>
#include <string>
#include "common.h"
#include "llama.h"

#define TAG "llama-android.cpp"
#define LOGi(...) __android_log_print(ANDROID_LOG_INFO, TAG, __VA_ARGS__)
#define LOGw(...) __android_log_print(ANDROID_LOG_WARN, TAG, __VA_ARGS__)

static constexpr int ALL_LAYERS = 99;

jclass la_int_var;
jmethodID la_int_var_value;
jmethodID la_int_var_inc;

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_load_1model(JNIEnv *env, jobject, jstring filename) {
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = ALL_LAYERS;
    auto path = env->GetStringUTFChars(filename, 0);
    llama_model *model = llama_model_load_from_file(path, model_params);
    if (!model) {
        LOGw("no OpenCL device, trying again on the CPU");
        model_params.n_gpu_layers = 0;
        model = llama_model_load_from_file(path, model_params);
    }
    env->ReleaseStringUTFChars(filename, path);
    return reinterpret_cast<jlong>(model);
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_new_1context(JNIEnv *env, jobject, jlong jmodel) {
    auto model = reinterpret_cast<llama_model *>(jmodel);
    int n_threads = std::max(2, std::min(6, (int) sysconf(_SC_NPROCESSORS_ONLN) / 2));
    llama_context_params ctx_params = llama_context_default_params();
    ctx_params.n_ctx           = 1024;
    ctx_params.n_batch         = 512;
    ctx_params.n_threads       = n_threads;
    ctx_params.n_threads_batch = n_threads;
    ctx_params.type_k          = GGML_TYPE_Q4_0;
    ctx_params.type_v          = GGML_TYPE_Q4_0;
    ctx_params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    llama_context *context = llama_init_from_model(model, ctx_params);
    if (!context) {
        env->ThrowNew(env->FindClass("java/lang/IllegalStateException"), "no context");
        return 0;
    }
    return reinterpret_cast<jlong>(context);
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_new_1batch(JNIEnv *, jobject, jint n_tokens, jint embd, jint n_seq_max) {
    auto *batch = new llama_batch(llama_batch_init(n_tokens, embd, n_seq_max));
    return reinterpret_cast<jlong>(batch);
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_new_1sampler(JNIEnv *, jobject) {
    auto sparams = llama_sampler_chain_default_params();
    sparams.no_perf = true;
    llama_sampler *smpl = llama_sampler_chain_init(sparams);
    // llama_sampler_chain_add(smpl, llama_sampler_init_temp(0.7f));
    llama_sampler_chain_add(smpl, llama_sampler_init_greedy());
    return reinterpret_cast<jlong>(smpl);
}

extern "C"
JNIEXPORT jint JNICALL
Java_android_llama_cpp_LLamaAndroid_completion_1init(
        JNIEnv *env, jobject, jlong jcontext, jlong jbatch, jstring jtext, jboolean format_chat, jint n_len) {
    const auto text = env->GetStringUTFChars(jtext, 0);
    const auto context = reinterpret_cast<llama_context *>(jcontext);
    const auto tokens = common_tokenize(context, text, true, format_chat == JNI_TRUE);
    env->ReleaseStringUTFChars(jtext, text);
    return tokens.size();
}

extern "C"
JNIEXPORT jstring JNICALL
Java_android_llama_cpp_LLamaAndroid_completion_1loop(
        JNIEnv *env, jobject, jlong jcontext, jlong jbatch, jlong jsampler, jint n_len, jobject intvar_ncur) {
    const auto context = reinterpret_cast<llama_context *>(jcontext);
    const auto batch = reinterpret_cast<llama_batch *>(jbatch);
    const auto sampler = reinterpret_cast<llama_sampler *>(jsampler);
    const auto vocab = llama_model_get_vocab(llama_get_model(context));
    if (!la_int_var) la_int_var = env->GetObjectClass(intvar_ncur);
    if (!la_int_var_value) la_int_var_value = env->GetMethodID(la_int_var, "getValue", "()I");
    if (!la_int_var_inc) la_int_var_inc = env->GetMethodID(la_int_var, "inc", "()V");

    const auto new_token_id = llama_sampler_sample(sampler, context, -1);
    const auto n_cur = env->CallIntMethod(intvar_ncur, la_int_var_value);
    if (llama_vocab_is_eog(vocab, new_token_id) || n_cur == n_len) {
        return nullptr;
    }
    auto piece = common_token_to_piece(context, new_token_id);
    common_batch_clear(*batch);
    common_batch_add(*batch, new_token_id, n_cur, {0}, true);
    env->CallVoidMethod(intvar_ncur, la_int_var_inc);
    if (llama_decode(context, *batch) != 0) {
        LOGw("llama_decode() failed");
    }
    return env->NewStringUTF(piece.c_str());
}

extern "C"
JNIEXPORT void JNICALL
Java_android_llama_cpp_LLamaAndroid_kv_1cache_1clear(JNIEnv *, jobject, jlong context) {
    llama_memory_clear(llama_get_memory(reinterpret_cast<llama_context *>(context)), true);
}
