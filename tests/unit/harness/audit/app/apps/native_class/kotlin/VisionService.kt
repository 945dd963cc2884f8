package org.sample

class VisionService : Service() {
    external fun create(model: String, projector: String): Long
    external fun run(engine: Long, picture: Bitmap, question: String): String

    private var engine = 0L

    override fun onStartCommand(intent: Intent, flags: Int, startId: Int): Int {
        engine = create("$filesDir/SmolVLM2-500M-Video-Instruct-f16.gguf", "$filesDir/mmproj-SmolVLM2-500M-Video-Instruct-f16.gguf")
        intent.data?.let { uri -> reply(element(uri)) }
        return START_STICKY
    }

    private fun element(uri: Uri): Element? {
        val source = MediaStore.Images.Media.getBitmap(contentResolver, uri)
        val upright = turned(source, uri)
        val shorter = minOf(upright.width, upright.height)
        val ratio = 64f / shorter
        val small = upright.scale((upright.width * ratio).toInt(), (upright.height * ratio).toInt())
        val said = run(engine, small, question()).lowercase()
        return Element.entries.firstOrNull { it.word in said }
    }

    private fun turned(bitmap: Bitmap, uri: Uri): Bitmap {
        val exif = ExifInterface(contentResolver.openInputStream(uri)!!)
        val degrees = when (exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, 1)) {
            ExifInterface.ORIENTATION_ROTATE_90 -> 90f
            else -> 0f
        }
        val matrix = Matrix().apply { postRotate(degrees) }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, matrix, true)
    }

    private fun question() = buildString {
        append("Classify this image into one of these elements: ")
        append(Element.entries.joinToString { it.word })
        append(".\n\nContext: a photo from the phone\n\nElement:")
    }
}

enum class Element(val word: String) { FIRE("fire"), WATER("water"), LAND("land"), WOOD("wood"), METAL("metal") }
