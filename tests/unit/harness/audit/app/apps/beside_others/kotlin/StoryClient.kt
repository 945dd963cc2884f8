package com.acme.lens

/** Asks a server for a story; what it sends is no prompt of the phone's model. */
class StoryClient(private val http: Http) {
    private val maxTokens = 500

    suspend fun complete(found: List<String>): String {
        val prompt = "Tell which of water, land, fire, wood and metal rules this day. Story:"
        return http.post("https://api.example.com/v1/chat/completions", Ask(prompt, maxTokens))
    }
}
