// The engine that sees images. Other models stand in the files beside it.
#include "mtmd.h"

static std::string with_image(const std::string &words) {
    return std::string(mtmd_get_marker(g_mtmd)) + "\n" + words;
}

extern "C" JNIEXPORT jboolean JNICALL
Java_com_acme_lens_VisionBridge_open(JNIEnv *env, jobject, jstring model_path, jstring mmproj_path) {
    llama_context_params cparams = llama_context_default_params();
    cparams.n_ctx           = 8192;
    cparams.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    g_ctx = llama_init_from_model(g_model, cparams);
    struct mtmd_context_params vparams = mtmd_context_params_default();
    vparams.n_threads       = 4;
    vparams.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    g_mtmd = mtmd_init_from_file(mmproj, g_model, vparams);
    return JNI_TRUE;
}

static std::string answer(const std::string &words) {
    const std::string prompt = with_image(words);
    mtmd_input_text input = {
        /* .text = */ prompt.c_str(),
        /* .add_special = */ true,
        /* .parse_special = */ true,
    };
    if (mtmd_tokenize(g_mtmd, chunks, &input, bitmaps, 1) != 0) return "";
    const int max_toks = 640;
    for (int i = 0; i < max_toks; ++i) {
        llama_token token = llama_sampler_sample(sampler, g_ctx, -1);
        if (llama_vocab_is_eog(vocab, token)) break;
    }
    llama_memory_seq_rm(llama_get_memory(g_ctx), 0, 0, -1);
    return out;
}
