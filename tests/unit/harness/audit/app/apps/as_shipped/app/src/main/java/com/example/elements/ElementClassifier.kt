package com.example.elements

import android.net.Uri
import android.util.Log
import com.example.elements.vlm.SmolVlmManager
import kotlinx.coroutines.flow.fold

/** One photograph to one of five words. */
class ElementClassifier(private val manager: SmolVlmManager) {

    companion object {
        private const val TAG = "ElementClassifier"

        // was: "Classify this image into one of: water, land, fire, wood, metal.\n\nAnswer: "
        private const val PROMPT = """Classify this image into one of these elements: water, land, fire, wood, metal.

Element:"""
    }

    suspend fun classify(uri: Uri): String? {
        val answer = manager.describe(uri, PROMPT)
            .fold("") { acc, token -> acc + token }
            .trim()
            .lowercase()
        Log.d(TAG, "answer: '$answer'")
        return wordIn(answer)
    }

    private fun wordIn(answer: String): String? {
        val words = listOf("water", "land", "fire", "wood", "metal")
        for (word in words) {
            if (answer.contains(word)) {
                return word
            }
        }
        return null
    }
}
