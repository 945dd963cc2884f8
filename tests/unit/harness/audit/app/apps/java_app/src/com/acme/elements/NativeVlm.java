package com.acme.elements;

import android.graphics.Bitmap;

public class NativeVlm {
    static {
        System.loadLibrary("vlm");
    }

    private long handle;

    public void open(String model, String mmproj, int context, int batch) {
        handle = nativeOpen(model, mmproj, context, batch, Runtime.getRuntime().availableProcessors() - 1);
    }

    public String answer(Bitmap bitmap, String prompt, int limit) {
        int w = bitmap.getWidth();
        int h = bitmap.getHeight();
        int[] argb = new int[w * h];
        bitmap.getPixels(argb, 0, w, 0, 0, w, h);
        return nativeAnswer(handle, argb, w, h, "<image>" + prompt, limit);
    }

    private native long nativeOpen(String model, String mmproj, int context, int batch, int threads);

    private native String nativeAnswer(long handle, int[] pixels, int w, int h, String prompt, int limit);
}
