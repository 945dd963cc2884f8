#include <jni.h>
#include "engine.h"

static jlong create(JNIEnv *env, jobject, jstring model, jstring projector) {
    auto *engine = new Engine();
    engine->open(env->GetStringUTFChars(model, nullptr), env->GetStringUTFChars(projector, nullptr));
    return reinterpret_cast<jlong>(engine);
}

static jstring run(JNIEnv *env, jobject, jlong handle, jobject picture, jstring question) {
    auto *engine = reinterpret_cast<Engine *>(handle);
    std::string asked = env->GetStringUTFChars(question, nullptr);
    return env->NewStringUTF(engine->describe(env, picture, asked).c_str());
}

static const JNINativeMethod METHODS[] = {
    {"create", "(Ljava/lang/String;Ljava/lang/String;)J", reinterpret_cast<void *>(create)},
    {"run", "(JLandroid/graphics/Bitmap;Ljava/lang/String;)Ljava/lang/String;", reinterpret_cast<void *>(run)},
};

JNIEXPORT jint JNI_OnLoad(JavaVM *vm, void *) {
    JNIEnv *env;
    vm->GetEnv(reinterpret_cast<void **>(&env), JNI_VERSION_1_6);
    env->RegisterNatives(env->FindClass("org/sample/VisionService"), METHODS, 2);
    return JNI_VERSION_1_6;
}
