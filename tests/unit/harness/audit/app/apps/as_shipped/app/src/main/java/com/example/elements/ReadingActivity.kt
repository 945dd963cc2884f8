package com.example.elements

import android.net.Uri
import android.os.Bundle
import androidx.appcompat.app.AppCompatActivity
import androidx.lifecycle.lifecycleScope
import com.example.elements.vlm.SmolVlmManager
import kotlinx.coroutines.launch

/** Three photographs, one after another; their three words are the reading. */
class ReadingActivity : AppCompatActivity() {
    private lateinit var manager: SmolVlmManager
    private lateinit var classifier: ElementClassifier
    private val photos = ArrayList<Uri>()

    companion object {
        private const val PHOTOS_PER_READING = 3
        private const val AVATAR_SIZE = 64
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        manager = SmolVlmManager(applicationContext)
        classifier = ElementClassifier(manager)
        showAvatar()
        lifecycleScope.launch { manager.initialize() }
    }

    private fun showAvatar() {
        val picture = BitmapFactory.decodeResource(resources, R.drawable.avatar)
        val small = Bitmap.createScaledBitmap(picture, AVATAR_SIZE, AVATAR_SIZE, false)
        avatarView.setImageBitmap(small)
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        val uri = data?.data ?: return
        photos.add(uri)
        if (photos.size == PHOTOS_PER_READING) {
            lifecycleScope.launch { readAll() }
        }
    }

    private suspend fun readAll() {
        val words = mutableListOf<String>()
        for (uri in photos) {
            val word = classifier.classify(uri) ?: "?"
            words.add(word)
        }
        showReading(words)
    }

    private fun showReading(words: List<String>) {
        readingView.text = words.joinToString(" - ")
    }
}
