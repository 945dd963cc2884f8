// Everything in one native file; the app hands it an encoded picture and shows what comes back.
#include <jni.h>
#include <string>
#include "llama.h"
#include "mtmd.h"
#include "mtmd-helper.h"

static llama_model *g_model;
static llama_context *g_ctx;
static mtmd_context *g_mtmd;
enum { MAX_NEW = 16 };

extern "C" JNIEXPORT jboolean JNICALL
Java_io_tiny_Vlm_load(JNIEnv *env, jclass, jstring dir) {
    std::string base = env->GetStringUTFChars(dir, nullptr);
    llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    g_model = llama_model_load_from_file((base + "/elements-q8_0.gguf").c_str(), mp);
    llama_context_params cp = llama_context_default_params();
    cp.n_ctx = 1 << 10;
    cp.type_k = cp.type_v = GGML_TYPE_F16;
    cp.flash_attn = false;
    g_ctx = llama_init_from_model(g_model, cp);
    mtmd_context_params vp = mtmd_context_params_default();
    vp.use_gpu = false;
    g_mtmd = mtmd_init_from_file((base + "/mmproj-elements-f16.gguf").c_str(), g_model, vp);
    return g_ctx && g_mtmd;
}

extern "C" JNIEXPORT jstring JNICALL
Java_io_tiny_Vlm_classify(JNIEnv *env, jclass, jbyteArray jpeg) {
    jbyte *bytes = env->GetByteArrayElements(jpeg, nullptr);
    mtmd_bitmap *bitmap = mtmd_helper_bitmap_init_from_buf(g_mtmd, (unsigned char *) bytes, env->GetArrayLength(jpeg));
    mtmd_input_text text;
    text.text = R"(<__media__>
Classify this image into one of these elements: water, land, fire, wood, metal.

Element:)";
    text.add_special = true;
    text.parse_special = true;
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    const mtmd_bitmap *list[] = {bitmap};
    mtmd_tokenize(g_mtmd, chunks, &text, list, 1);
    llama_pos n_past = 0;
    mtmd_helper_eval_chunks(g_mtmd, g_ctx, chunks, 0, 0, 512, true, &n_past);
    std::string answer;
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(g_model));
    for (int i = 0; i < MAX_NEW; i++) {
        const float *logits = llama_get_logits_ith(g_ctx, -1);
        llama_token best = 0;
        for (int t = 1; t < n_vocab; t++) {
            if (logits[t] > logits[best]) best = t;
        }
        if (llama_vocab_is_eog(llama_model_get_vocab(g_model), best)) break;
        char piece[64];
        answer.append(piece, llama_token_to_piece(llama_model_get_vocab(g_model), best, piece, 64, 0, true));
        llama_decode(g_ctx, llama_batch_get_one(&best, 1));
    }
    if (answer.find("water") != std::string::npos) return env->NewStringUTF("water");
    if (answer.find("land") != std::string::npos) return env->NewStringUTF("land");
    if (answer.find("fire") != std::string::npos) return env->NewStringUTF("fire");
    if (answer.find("wood") != std::string::npos) return env->NewStringUTF("wood");
    if (answer.find("metal") != std::string::npos) return env->NewStringUTF("metal");
    return nullptr;
}
