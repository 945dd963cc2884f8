package net.settings

object Vlm {
    const val SIDE = 256
    const val NEW_TOKENS = 32
    const val MARKER = "<__media__>"
    val WORDS = listOf("water", "land", "fire", "wood", "metal")
}

data class Runtime(
    val context: Int = 1024,
    val batch: Int = 512,
    val cache: Int = 2, // GGML_TYPE_Q4_0
    val flash: Boolean = true,
    val visionThreads: Int = 4,
)
