#include <jni.h>
#include <stdlib.h>
#include "llama.h"
#include "mtmd.h"
#include "mtmd-helper.h"

#define RED(p)   (((p) >> 16) & 0xFF)
#define GREEN(p) (((p) >> 8) & 0xFF)
#define BLUE(p)  ((p) & 0xFF)

struct vlm {
    struct llama_model *model;
    struct llama_context *ctx;
    struct mtmd_context *mtmd;
    int batch;
};

JNIEXPORT jlong JNICALL
Java_com_acme_elements_NativeVlm_nativeOpen(JNIEnv *env, jobject self, jstring jmodel, jstring jmmproj,
                                            jint context, jint batch, jint threads) {
    struct vlm *v = calloc(1, sizeof(struct vlm));
    const char *model = (*env)->GetStringUTFChars(env, jmodel, NULL);
    const char *mmproj = (*env)->GetStringUTFChars(env, jmmproj, NULL);
    struct llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    v->model = llama_model_load_from_file(model, mp);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = context;
    cp.n_batch = batch;
    cp.n_threads = threads;
    cp.type_k = GGML_TYPE_Q8_0;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    v->ctx = llama_init_from_model(v->model, cp);
    struct mtmd_context_params vp = mtmd_context_params_default();
    vp.use_gpu = false;
    vp.n_threads = 2;
    vp.media_marker = "<image>";
    v->mtmd = mtmd_init_from_file(mmproj, v->model, vp);
    v->batch = batch;
    return (jlong) v;
}

JNIEXPORT jstring JNICALL
Java_com_acme_elements_NativeVlm_nativeAnswer(JNIEnv *env, jobject self, jlong handle, jintArray pixels,
                                              jint w, jint h, jstring jprompt, jint limit) {
    struct vlm *v = (struct vlm *) handle;
    jint *argb = (*env)->GetIntArrayElements(env, pixels, NULL);
    unsigned char *rgb = malloc(w * h * 3);
    for (int i = 0; i < w * h; i++) {
        unsigned char *out = rgb + 3 * i;
        out[0] = RED(argb[i]);
        out[1] = GREEN(argb[i]);
        out[2] = BLUE(argb[i]);
    }
    mtmd_bitmap *bitmap = mtmd_bitmap_init(w, h, rgb);
    const mtmd_bitmap *all[1] = {bitmap};
    mtmd_input_text input = {(*env)->GetStringUTFChars(env, jprompt, NULL), false, true};
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    mtmd_tokenize(v->mtmd, chunks, &input, all, 1);
    llama_memory_clear(llama_get_memory(v->ctx), true);
    llama_pos n_past = 0;
    mtmd_helper_eval_chunks(v->mtmd, v->ctx, chunks, 0, 0, v->batch, true, &n_past);

    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.9f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(0.2f));
    llama_sampler_chain_add(chain, llama_sampler_init_dist(1));
    char text[512] = "";
    int produced = 0;
    while (produced < limit) {
        llama_token token = llama_sampler_sample(chain, v->ctx, -1);
        if (llama_vocab_is_eog(llama_model_get_vocab(v->model), token)) break;
        llama_token_to_piece(llama_model_get_vocab(v->model), token, text, sizeof(text), 0, true);
        struct llama_batch one = llama_batch_get_one(&token, 1);
        llama_decode(v->ctx, one);
        produced++;
    }
    return (*env)->NewStringUTF(env, text);
}
