package com.acme.lens

data class ModelConfig(
    var ctxSize: Int = 4096,
    var threadNum: Int = 4,
    var systemPrompt: String = "You are a helpful assistant.",
    var maxNewTokens: Int = 512,
)

const val DEFAULT_PREDICT_LENGTH = 256
