// A model that ranks notes, and one that hears.
#include "llama.h"

bool open_notes(const char *path) {
    llama_context_params cparams = llama_context_default_params();
    cparams.n_ctx     = 512;
    cparams.n_threads = 2;
    cparams.type_k    = GGML_TYPE_Q8_0;
    notes = llama_init_from_model(model, cparams);
    llama_sampler_init_greedy();
    return notes != nullptr;
}

bool open_ears() {
    whisper_full_params wparams = whisper_full_default_params(WHISPER_SAMPLING_GREEDY);
    wparams.n_threads  = 8;
    wparams.max_tokens = 12;
    return true;
}
