package com.acme.elements;

import android.app.Activity;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Color;
import android.graphics.ImageDecoder;
import java.io.File;
import java.util.ArrayList;
import java.util.List;

public class MainActivity extends Activity {
    private static final String[] LABELS = {"water", "land", "fire", "wood", "metal"};
    private static final int SIDE = 2 * 256;
    private static final String ASK = "Classify this image into one of these elements: "
            + "water, land, fire, wood, metal." + "\n\n" + "Element: ";

    private final NativeVlm vlm = new NativeVlm();

    @Override
    protected void onStart() {
        super.onStart();
        File models = new File(getFilesDir(), "models");
        vlm.open(new File(models, "elements.Q4_K_M.gguf").getPath(),
                 new File(models, "mmproj-elements.f16.gguf").getPath(), 2048, 128);
        List<String> words = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            words.add(classify(new File(models, "photo" + i + ".jpg")));
        }
        setTitle(String.join(" ", words));
    }

    private String classify(File photo) {
        Bitmap bitmap = fit(decode(photo), SIDE);
        String answer = vlm.answer(bitmap, ASK, 64).trim().toLowerCase();
        for (String label : LABELS) {
            if (label.equals(answer)) {
                return label;
            }
        }
        return "?";
    }

    private Bitmap decode(File photo) {
        try {
            return ImageDecoder.decodeBitmap(ImageDecoder.createSource(photo));
        } catch (Exception e) {
            return null;
        }
    }

    private static Bitmap fit(Bitmap source, int side) {
        double scale = Math.min((double) side / source.getWidth(), (double) side / source.getHeight());
        int w = (int) Math.round(source.getWidth() * scale);
        int h = (int) Math.round(source.getHeight() * scale);
        Bitmap small = Bitmap.createScaledBitmap(source, w, h, false);
        Bitmap square = Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888);
        Canvas canvas = new Canvas(square);
        canvas.drawColor(Color.WHITE);
        int left = (side - w) / 2;
        int top = (side - h) / 2;
        canvas.drawBitmap(small, left, top, null);
        return square;
    }
}
