// The engine's own source: what it says is no app's decision.
llama_context_params llama_context_default_params() {
    llama_context_params result;
    result.n_ctx = 512;
    result.n_batch = 2048;
    return result;
}
