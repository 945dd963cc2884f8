package net.settings

import java.nio.ByteBuffer

@Composable
fun Screen(model: ScreenModel) {
    Button(onClick = { model.read() }) { Text(stringResource(R.string.app_name)) }
}

interface Classifier {
    suspend fun wordOf(picture: Bitmap): String?
}

class ScreenModel(private val app: Application, private val classifier: Classifier = LlamaClassifier(app)) : ViewModel() {
    fun read() {
        viewModelScope.launch {
            val words = List(3) { index -> classifier.wordOf(photo(index)) }
            show(words)
        }
    }

    private fun photo(index: Int): Bitmap = BitmapFactory.decodeFile("${app.filesDir}/photo$index.jpg")
}

class LlamaClassifier(private val app: Application, private val runtime: Runtime = Runtime(batch = 256)) : Classifier {
    private val cores = java.lang.Runtime.getRuntime().availableProcessors()
    private val handle: Long by lazy {
        Native.open(
            File(app.filesDir, "elements-q8_0.gguf").path,
            File(app.filesDir, "mmproj-elements-q8_0.gguf").path,
            runtime.context, runtime.batch, runtime.cache, runtime.flash,
            (cores / 2).coerceIn(2, 6), runtime.visionThreads,
        )
    }

    override suspend fun wordOf(picture: Bitmap): String? = withContext(Dispatchers.Default) {
        val square = squared(picture)
        val prompt = listOf(Vlm.MARKER, app.getString(R.string.classify)).joinToString("\n")
        val pixels = ByteBuffer.allocateDirect(square.byteCount)
        square.copyPixelsToBuffer(pixels)
        val answer = StringBuilder()
        Native.start(handle, rgb(pixels), square.width, square.height, prompt)
        repeat(Vlm.NEW_TOKENS) {
            val piece = Native.next(handle) ?: return@repeat
            answer.append(piece)
        }
        Native.forget(handle)
        Vlm.WORDS.firstOrNull { answer.toString().lowercase().contains(it) }
    }

    private fun squared(picture: Bitmap): Bitmap {
        val side = Vlm.SIDE
        val scale = side.toFloat() / maxOf(picture.width, picture.height)
        val width = (picture.width * scale).toInt()
        val height = (picture.height * scale).toInt()
        val small = Bitmap.createScaledBitmap(picture, width, height, true)
        return Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888).also { square ->
            Canvas(square).apply {
                drawColor(0xFF000000.toInt())
                drawBitmap(small, (side - width) * 0.5f, (side - height) * 0.5f, null)
            }
        }
    }

    private fun rgb(rgba: ByteBuffer): ByteArray {
        rgba.rewind()
        val out = ByteArray(rgba.capacity() / 4 * 3)
        var o = 0
        for (i in 0 until rgba.capacity() / 4) {
            out[o++] = rgba.get(i * 4)
            out[o++] = rgba.get(i * 4 + 1)
            out[o++] = rgba.get(i * 4 + 2)
        }
        return out
    }
}

object Native {
    init { System.loadLibrary("elements") }
    @JvmStatic external fun open(model: String, mmproj: String, context: Int, batch: Int, cache: Int, flash: Boolean, threads: Int, visionThreads: Int): Long
    @JvmStatic external fun start(handle: Long, rgb: ByteArray, width: Int, height: Int, prompt: String)
    @JvmStatic external fun next(handle: Long): String?
    @JvmStatic external fun forget(handle: Long)
}
