package com.example.elements.vlm

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.llama.cpp.LLamaAndroid
import android.net.Uri
import java.io.File
import kotlinx.coroutines.flow.Flow

class SmolVlmManager(private val context: Context) {
    private val llama = LLamaAndroid.instance()
    private var modelPath: String? = null
    private var mmprojPath: String? = null

    companion object {
        private const val MODEL_FILE = "elements-smolvlm2-500m-q8_0.gguf"
        private const val MMPROJ_FILE = "mmproj-SmolVLM2-500M-Video-Instruct-Q8_0.gguf"
        private const val MODELS_DIR = "models"
        private const val IMAGE_MARKER = "<__media__>"

        // 384 was too slow
        private const val TARGET_IMAGE_SIZE = 256
    }

    suspend fun initialize() {
        modelPath = unpacked(MODEL_FILE)
        llama.load(modelPath!!)
        mmprojPath = unpacked(MMPROJ_FILE)
        llama.loadMmproj(mmprojPath!!)
    }

    private fun unpacked(name: String): String {
        val file = File(File(context.filesDir, MODELS_DIR), name)
        if (!file.exists()) {
            context.assets.open("$MODELS_DIR/$name").use { input ->
                file.outputStream().use { output -> input.copyTo(output) }
            }
        }
        return file.absolutePath
    }

    fun describe(uri: Uri, prompt: String): Flow<String> {
        val bitmap = load(uri) ?: throw IllegalArgumentException("no image at $uri")
        return describe(bitmap, prompt)
    }

    fun describe(bitmap: Bitmap, prompt: String): Flow<String> {
        val resized = resizeForModel(bitmap, TARGET_IMAGE_SIZE)
        return llama.sendWithImage(withMarker(prompt), resized)
    }

    fun ask(question: String): Flow<String> = llama.send(question, formatChat = false)

    private fun withMarker(prompt: String): String {
        return "$IMAGE_MARKER\n$prompt"
    }

    private fun load(uri: Uri): Bitmap? {
        return context.contentResolver.openInputStream(uri)?.use { input ->
            BitmapFactory.decodeStream(input)
        }
    }

    private fun resizeForModel(bitmap: Bitmap, targetSize: Int): Bitmap {
        val width = bitmap.width
        val height = bitmap.height
        if (width == targetSize && height == targetSize) {
            return bitmap
        }
        val scaleFactor = minOf(
            targetSize.toFloat() / width,
            targetSize.toFloat() / height
        )
        val scaledWidth = (width * scaleFactor).toInt()
        val scaledHeight = (height * scaleFactor).toInt()
        val scaled = Bitmap.createScaledBitmap(bitmap, scaledWidth, scaledHeight, true)
        if (scaledWidth != targetSize || scaledHeight != targetSize) {
            val padded = Bitmap.createBitmap(targetSize, targetSize, Bitmap.Config.ARGB_8888)
            val canvas = Canvas(padded)
            canvas.drawColor(Color.BLACK)
            val left = (targetSize - scaledWidth) / 2f
            val top = (targetSize - scaledHeight) / 2f
            canvas.drawBitmap(scaled, left, top, null)
            return padded
        }
        return scaled
    }

    /** How it was done before the padding; nothing calls it any more. */
    private fun resizeStretched(bitmap: Bitmap): Bitmap =
        Bitmap.createScaledBitmap(bitmap, 384, 384, false)
}
