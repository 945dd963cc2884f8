#include <android/bitmap.h>
#include <android/log.h>
#include <jni.h>
#include <string>
#include <vector>
#include "llama.h"
#include "mtmd/mtmd-helper.h"
#include "mtmd/mtmd.h"

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_load_1mmproj(JNIEnv *env, jobject, jstring jpath, jlong model_ptr) {
    const char *path = env->GetStringUTFChars(jpath, nullptr);
    auto *text_model = reinterpret_cast<llama_model *>(model_ptr);
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = true;
    params.n_threads = 4;
    mtmd_context *ctx = mtmd_init_from_file(path, text_model, params);
    if (!ctx) {
        params.use_gpu = false;
        ctx = mtmd_init_from_file(path, text_model, params);
    }
    env->ReleaseStringUTFChars(jpath, path);
    return reinterpret_cast<jlong>(ctx);
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_bitmap_1from_1android(JNIEnv *env, jobject, jobject bitmap) {
    AndroidBitmapInfo info;
    if (AndroidBitmap_getInfo(env, bitmap, &info) < 0) return 0;
    void *pixels = nullptr;
    if (AndroidBitmap_lockPixels(env, bitmap, &pixels) < 0) return 0;

    uint32_t width = info.width;
    uint32_t height = info.height;
    std::vector<uint8_t> rgb(width * height * 3);
    auto *rgba_pixels = static_cast<uint32_t *>(pixels);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint32_t idx = y * width + x;
            uint32_t rgba = rgba_pixels[idx];
            rgb[idx * 3 + 0] = (rgba >> 16) & 0xFF;
            rgb[idx * 3 + 1] = (rgba >> 8) & 0xFF;
            rgb[idx * 3 + 2] = rgba & 0xFF;
        }
    }
    AndroidBitmap_unlockPixels(env, bitmap);
    return reinterpret_cast<jlong>(mtmd_bitmap_init(width, height, rgb.data()));
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_tokenize_1with_1image(
        JNIEnv *env, jobject, jlong mtmd_ptr, jstring jprompt, jlong bitmap_ptr) {
    auto *mtmd_ctx = reinterpret_cast<mtmd_context *>(mtmd_ptr);
    auto *bitmap = reinterpret_cast<mtmd_bitmap *>(bitmap_ptr);
    const char *prompt = env->GetStringUTFChars(jprompt, nullptr);
    mtmd_input_text input_text;
    input_text.text = prompt;
    input_text.add_special = true;
    input_text.parse_special = true;
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    const mtmd_bitmap *bitmaps[] = {bitmap};
    int32_t ret = mtmd_tokenize(mtmd_ctx, chunks, &input_text, bitmaps, 1);
    env->ReleaseStringUTFChars(jprompt, prompt);
    return ret == 0 ? reinterpret_cast<jlong>(chunks) : 0;
}

extern "C"
JNIEXPORT jlong JNICALL
Java_android_llama_cpp_LLamaAndroid_eval_1chunks(
        JNIEnv *, jobject, jlong mtmd_ptr, jlong llama_ptr, jlong chunks_ptr, jint n_past, jint n_batch) {
    llama_pos new_n_past = 0;
    int32_t ret = mtmd_helper_eval_chunks(
        reinterpret_cast<mtmd_context *>(mtmd_ptr), reinterpret_cast<llama_context *>(llama_ptr),
        reinterpret_cast<mtmd_input_chunks *>(chunks_ptr), n_past, 0, n_batch, true, &new_n_past);
    return ret == 0 ? (jlong) new_n_past : -1;
}
