package dev.driftloop

import android.graphics.Bitmap
import androidx.test.platform.app.InstrumentationRegistry
import java.io.File
import java.io.FileOutputStream
import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Test

/**
 * What the app itself sees and answers, for `driftloop run --app`.
 *
 * Goes into app/src/androidTest. Fill in `answer` with the app's own calls; `driftloop app run`
 * pushes the images, starts this class and fetches what it writes. It needs the JUnit 4 runner of
 * androidx.test, as any instrumented test does.
 */
class DriftloopProbe {
    /** What the app made of one image. Leave out what it cannot tell: null is "not told". */
    class Seen(
        /** The answer as generated, before anything is trimmed. */
        val text: String,
        /** The label as the app reads it. */
        val label: String? = null,
        /** The square that the model was given: width * height * 3 RGB or * 4 RGBA bytes. */
        val pixels: ByteArray? = null,
        /** How many tokens the image takes in the prompt. */
        val imageTokens: Int? = null,
        /** The whole prompt, -1 for each token of the image. */
        val promptIds: IntArray? = null,
        /** As generated, the end token among them. */
        val tokenIds: IntArray? = null,
        val textModelSha256: String? = null,
        val mmprojSha256: String? = null,
        /** Of the app, its engine and its device. */
        val versions: Map<String, String> = emptyMap()
    )

    /** The app's own preparation and inference of one photo: change this, and nothing else. */
    private fun answer(image: File): Seen {
        throw NotImplementedError("call the app's own preparation and inference on $image here")
    }

    @Test
    fun answerEveryImage() {
        val arguments = InstrumentationRegistry.getArguments()
        val images = File(checkNotNull(arguments.getString("images")) { "pass -e images FOLDER" })
        val run = checkNotNull(arguments.getString("run")) { "pass -e run NAME" }
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val folder = checkNotNull(context.getExternalFilesDir("driftloop/$run"))
        val lines = File(folder, "observations.jsonl")
        val told = toldBefore(lines)
        val files = checkNotNull(images.listFiles()) { "$images cannot be listed" }
        for (image in files.filter { it.isFile }.sortedBy { it.name }) {
            val sha256 = image.nameWithoutExtension
            if (sha256 !in told) {
                append(lines, line(folder, sha256, answer(image)))
            }
        }
    }

    /** The images that an earlier start has told; what it left of a torn line is cut off. */
    private fun toldBefore(lines: File): Set<String> {
        if (!lines.exists()) return emptySet()
        val whole = lines.readText().substringBeforeLast('\n', "")
        lines.writeText(if (whole.isEmpty()) "" else whole + "\n")
        return whole.lines().filter { it.isNotEmpty() }
            .map { JSONObject(it).getString("image_sha256") }.toSet()
    }

    private fun line(folder: File, sha256: String, seen: Seen): JSONObject {
        val line = JSONObject().put("image_sha256", sha256).put("text", seen.text)
        // JSONObject leaves a field out whose value is null.
        line.put("label", seen.label)
        seen.pixels?.let {
            File(folder, "$sha256.rgb").writeBytes(it)
            line.put("pixels", "$sha256.rgb")
        }
        line.put("image_tokens", seen.imageTokens)
        line.put("prompt_ids", seen.promptIds?.let { JSONArray(it.toList()) })
        line.put("token_ids", seen.tokenIds?.let { JSONArray(it.toList()) })
        line.put("text_model_sha256", seen.textModelSha256)
        line.put("mmproj_sha256", seen.mmprojSha256)
        return line.put("versions", JSONObject(seen.versions))
    }

    private fun append(lines: File, line: JSONObject) {
        FileOutputStream(lines, true).use {
            it.write((line.toString() + "\n").toByteArray())
            it.fd.sync()
        }
    }

    companion object {
        /** The bytes of a bitmap as it lies in memory (R, G, B, A), for `Seen.pixels`. */
        fun rgbaOf(bitmap: Bitmap): ByteArray {
            val plain = bitmap.copy(Bitmap.Config.ARGB_8888, false)
            val bytes = ByteBuffer.allocate(plain.width * plain.height * 4)
            plain.copyPixelsToBuffer(bytes)
            return bytes.array()
        }
    }
}
