package com.acme.lens

/** MediaPipe's engine, whose tokens are the prompt's and the answer's together. */
class LensService(private val context: Context) {
    suspend fun open(path: String) {
        val options = LlmInference.LlmInferenceOptions.builder()
            .setModelPath(path)
            .setMaxTokens(MAX_TOKENS)
            .setPreferredBackend(LlmInference.Backend.GPU)
            .setMaxNumImages(MOST)
            .build()
        engine = LlmInference.createFromOptions(context, options)
        session = LlmInferenceSession.createFromOptions(
            engine,
            LlmInferenceSession.LlmInferenceSessionOptions.builder()
                .setTemperature(DEFAULT_TEMPERATURE)
                .build(),
        )
    }

    companion object {
        private const val MAX_TOKENS = 1024
        private const val MOST = 4
        private const val DEFAULT_TEMPERATURE = 0.8f
    }
}
