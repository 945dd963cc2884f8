package com.example.elements

class ResizeTest {
    @Test
    fun padsWithWhite() {
        val canvas = Canvas(Bitmap.createBitmap(512, 512, Bitmap.Config.ARGB_8888))
        canvas.drawColor(Color.WHITE)
        canvas.drawBitmap(Bitmap.createScaledBitmap(picture, 512, 300, false), 0f, 0f, null)
    }
}
