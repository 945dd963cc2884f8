package com.acme.lens

import org.tensorflow.lite.Interpreter

/** Finds things in the camera's frames; no language model has a part in it. */
class ImageClassifier(private val interpreter: Interpreter) {
    private fun letterbox(frame: Bitmap): Bitmap {
        val scale = minOf(SIDE.toFloat() / frame.width, SIDE.toFloat() / frame.height)
        val small = Bitmap.createScaledBitmap(frame, SIDE, SIDE, true)
        val padded = createBitmap(SIDE, SIDE)
        val canvas = Canvas(padded)
        canvas.drawColor(Color.rgb(114, 114, 114))
        canvas.drawBitmap(small, (SIDE - small.width) / 2f, 0f, null)
        return padded
    }

    companion object {
        private const val SIDE = 640
    }
}
