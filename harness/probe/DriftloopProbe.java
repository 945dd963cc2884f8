package dev.driftloop;

import static org.junit.Assert.assertNotNull;

import android.graphics.Bitmap;
import android.os.Bundle;
import androidx.test.platform.app.InstrumentationRegistry;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.junit.Test;

/**
 * What the app itself sees and answers, for `driftloop run --app`.
 *
 * <p>Goes into app/src/androidTest. Fill in `answer` with the app's own calls; `driftloop app run`
 * pushes the images, starts this class and fetches what it writes. It needs the JUnit 4 runner of
 * androidx.test, as any instrumented test does.
 */
public class DriftloopProbe {
    /** What the app made of one image. Leave out what it cannot tell: null is "not told". */
    public static class Seen {
        /** The answer as generated, before anything is trimmed. */
        public final String text;
        /** The label as the app reads it. */
        public String label;
        /** The square that the model was given: width * height * 3 RGB or * 4 RGBA bytes. */
        public byte[] pixels;
        /** How many tokens the image takes in the prompt. */
        public Integer imageTokens;
        /** The whole prompt, -1 for each token of the image. */
        public int[] promptIds;
        /** As generated, the end token among them. */
        public int[] tokenIds;
        public String textModelSha256;
        public String mmprojSha256;
        /** Of the app, its engine and its device. */
        public final Map<String, String> versions = new HashMap<>();

        public Seen(String text) {
            this.text = text;
        }
    }

    /** The app's own preparation and inference of one photo: change this, and nothing else. */
    private Seen answer(File image) {
        throw new UnsupportedOperationException(
                "call the app's own preparation and inference on " + image + " here");
    }

    @Test
    public void answerEveryImage() throws IOException, JSONException {
        Bundle arguments = InstrumentationRegistry.getArguments();
        String run = arguments.getString("run");
        String images = arguments.getString("images");
        assertNotNull("pass -e images FOLDER", images);
        assertNotNull("pass -e run NAME", run);
        File folder =
                InstrumentationRegistry.getInstrumentation()
                        .getTargetContext()
                        .getExternalFilesDir("driftloop/" + run);
        File lines = new File(folder, "observations.jsonl");
        Set<String> told = toldBefore(lines);
        File[] files = new File(images).listFiles();
        assertNotNull(images + " cannot be listed", files);
        Arrays.sort(files);
        for (File image : files) {
            String name = image.getName();
            int dot = name.lastIndexOf('.');
            String sha256 = dot < 0 ? name : name.substring(0, dot);
            if (image.isFile() && !told.contains(sha256)) {
                append(lines, line(folder, sha256, answer(image)));
            }
        }
    }

    /** The images that an earlier start has told; what it left of a torn line is cut off. */
    private static Set<String> toldBefore(File lines) throws IOException, JSONException {
        Set<String> told = new HashSet<>();
        if (!lines.exists()) {
            return told;
        }
        ByteArrayOutputStream read = new ByteArrayOutputStream();
        try (FileInputStream input = new FileInputStream(lines)) {
            byte[] part = new byte[65536];
            for (int count = input.read(part); count > 0; count = input.read(part)) {
                read.write(part, 0, count);
            }
        }
        String all = read.toString("UTF-8");
        String whole = all.substring(0, all.lastIndexOf('\n') + 1);
        try (RandomAccessFile file = new RandomAccessFile(lines, "rw")) {
            file.setLength(whole.getBytes("UTF-8").length);
        }
        for (String line : whole.split("\n")) {
            if (!line.isEmpty()) {
                told.add(new JSONObject(line).getString("image_sha256"));
            }
        }
        return told;
    }

    private static JSONObject line(File folder, String sha256, Seen seen)
            throws IOException, JSONException {
        JSONObject line = new JSONObject().put("image_sha256", sha256).put("text", seen.text);
        // JSONObject leaves a field out whose value is null.
        line.put("label", seen.label);
        if (seen.pixels != null) {
            try (FileOutputStream dump = new FileOutputStream(new File(folder, sha256 + ".rgb"))) {
                dump.write(seen.pixels);
            }
            line.put("pixels", sha256 + ".rgb");
        }
        line.put("image_tokens", seen.imageTokens);
        line.put("prompt_ids", listed(seen.promptIds));
        line.put("token_ids", listed(seen.tokenIds));
        line.put("text_model_sha256", seen.textModelSha256);
        line.put("mmproj_sha256", seen.mmprojSha256);
        return line.put("versions", new JSONObject(seen.versions));
    }

    private static JSONArray listed(int[] ids) {
        if (ids == null) {
            return null;
        }
        JSONArray list = new JSONArray();
        for (int id : ids) {
            list.put(id);
        }
        return list;
    }

    private static void append(File lines, JSONObject line) throws IOException {
        try (FileOutputStream file = new FileOutputStream(lines, true)) {
            file.write((line + "\n").getBytes("UTF-8"));
            file.getFD().sync();
        }
    }

    /** The bytes of a bitmap as it lies in memory (R, G, B, A), for {@link Seen#pixels}. */
    public static byte[] rgbaOf(Bitmap bitmap) {
        Bitmap plain = bitmap.copy(Bitmap.Config.ARGB_8888, false);
        ByteBuffer bytes = ByteBuffer.allocate(plain.getWidth() * plain.getHeight() * 4);
        plain.copyPixelsToBuffer(bytes);
        return bytes.array();
    }
}
