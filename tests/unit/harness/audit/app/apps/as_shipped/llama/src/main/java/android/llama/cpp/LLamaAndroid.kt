package android.llama.cpp

import android.graphics.Bitmap
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.withContext

class LLamaAndroid {
    private val threadLocalState: ThreadLocal<State> = ThreadLocal.withInitial { State.Idle }

    // new tokens of one answer
    private val nlen: Int = 32

    private external fun load_model(filename: String): Long
    private external fun new_context(model: Long): Long
    private external fun new_batch(nTokens: Int, embd: Int, nSeqMax: Int): Long
    private external fun new_sampler(): Long
    private external fun completion_init(context: Long, batch: Long, text: String, formatChat: Boolean, nLen: Int): Int
    private external fun completion_loop(context: Long, batch: Long, sampler: Long, nLen: Int, ncur: IntVar): String?
    private external fun kv_cache_clear(context: Long)
    private external fun load_mmproj(path: String, model: Long): Long
    private external fun bitmap_from_android(bitmap: Bitmap): Long
    private external fun tokenize_with_image(mtmd: Long, prompt: String, bitmap: Long): Long
    private external fun eval_chunks(mtmd: Long, context: Long, chunks: Long, nPast: Int, nBatch: Int): Long

    suspend fun load(pathToModel: String) {
        withContext(runLoop) {
            val model = load_model(pathToModel)
            if (model == 0L) throw IllegalStateException("load_model() failed")
            val context = new_context(model)
            if (context == 0L) throw IllegalStateException("new_context() failed")
            val batch = new_batch(512, 0, 1)
            threadLocalState.set(State.Loaded(model, context, batch, new_sampler()))
        }
    }

    suspend fun loadMmproj(path: String) {
        withContext(runLoop) {
            when (val state = threadLocalState.get()) {
                is State.Loaded -> {
                    val mmproj = load_mmproj(path, state.model)
                    if (mmproj == 0L) throw IllegalStateException("load_mmproj() failed")
                    threadLocalState.set(state.copy(mmproj = mmproj))
                }
                else -> throw IllegalStateException("no model")
            }
        }
    }

    fun send(message: String, formatChat: Boolean = false): Flow<String> = flow {
        when (val state = threadLocalState.get()) {
            is State.Loaded -> {
                val ncur = IntVar(completion_init(state.context, state.batch, message, formatChat, nlen))
                while (ncur.value <= nlen) {
                    val str = completion_loop(state.context, state.batch, state.sampler, nlen, ncur) ?: break
                    emit(str)
                }
                kv_cache_clear(state.context)
            }
            else -> {}
        }
    }.flowOn(runLoop)

    fun sendWithImage(message: String, image: Bitmap): Flow<String> = flow {
        when (val state = threadLocalState.get()) {
            is State.Loaded -> {
                val bitmapPtr = bitmap_from_android(image)
                if (bitmapPtr == 0L) throw IllegalStateException("bitmap_from_android() failed")
                val chunks = tokenize_with_image(state.mmproj, message, bitmapPtr)
                val newNPast = eval_chunks(state.mmproj, state.context, chunks, 0, 512)
                val ncur = IntVar(newNPast.toInt())
                val maxTokens = newNPast.toInt() + nlen
                while (ncur.value < maxTokens) {
                    val str = completion_loop(state.context, state.batch, state.sampler, maxTokens, ncur)
                    if (str == null) {
                        break
                    }
                    emit(str)
                }
                kv_cache_clear(state.context)
            }
            else -> throw IllegalStateException("no model")
        }
    }.flowOn(runLoop)

    companion object {
        private class IntVar(value: Int) {
            @Volatile
            var value: Int = value
                private set

            fun inc() {
                synchronized(this) { value += 1 }
            }
        }

        private sealed interface State {
            data object Idle : State
            data class Loaded(val model: Long, val context: Long, val batch: Long, val sampler: Long, val mmproj: Long = 0L) : State
        }

        private val _instance: LLamaAndroid = LLamaAndroid()

        fun instance(): LLamaAndroid = _instance
    }
}
