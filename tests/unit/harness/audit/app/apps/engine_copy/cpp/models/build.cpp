void build(llama_context_params p) {
    p.n_ctx = 77;
}
