// The app's own source, in a folder of the engine's copy.
void take(common_params & params, const Settings & given) {
    params.n_ctx     = 4096;
    params.n_batch   = 256;
    params.n_predict = number(given, "n_predict", params.n_predict);
    if (given.is_warm_up) {
        params.n_predict = 0;
    }
}
