package com.acme.lens

import com.google.ai.edge.litertlm.Engine
import com.google.ai.edge.litertlm.EngineConfig

/** LiteRT-LM's engine: named arguments of a configuration. */
class LocalBrain(private val path: String) {
    fun open() {
        engine = Engine(
            EngineConfig(modelPath = path, backend = Backend.CPU(), maxNumTokens = 768),
        )
        sampler = SamplerConfig(topK = 40, temperature = 0.7)
    }
}
