// MNN's engine: a limit that is a member's, and a marker that ends the answer.
LlmSession::LlmSession(json config) {
    max_new_tokens_ = config.contains("max_new_tokens") ? config["max_new_tokens"].get<int>() : 2048;
    text = conversions::as_text(config, "prompt: a text is wanted", 1);
}

const Context *LlmSession::Response(const std::string &prompt) {
    bool is_end = piece.find("<eop>") != std::string::npos;
    while (!stop_requested_ && generated < max_new_tokens_) llm_->generate(1);
    return llm_->getContext();
}
