package org.openelm

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.asExecutor
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlinx.coroutines.withContext
import org.openelm.bindings.CacheType
import org.openelm.bindings.Description
import org.openelm.bindings.Footprint
import org.openelm.bindings.Generation
import org.openelm.bindings.GenerationOptions
import org.openelm.bindings.LoadOptions
import org.openelm.bindings.Message
import org.openelm.bindings.Model
import org.openelm.bindings.Piece
import org.openelm.bindings.Session
import org.openelm.bindings.footprint

/**
 * A model with its tokenizer, ready to run. Close it when it is no longer needed; a handle that was closed throws
 * [IllegalStateException], everything else that goes wrong is an `OpenElmException` with a sentence.
 */
class OpenElm private constructor(private val model: Model) : AutoCloseable {
    companion object {
        /** Opens the model at [path]: a folder of Hugging Face or MLX, a bundle, or a `.gguf` or `.safetensors` file. */
        suspend fun open(path: String, options: LoadOptions = LoadOptions(cache = CacheType.F32)): OpenElm =
            withContext(Dispatchers.IO) { OpenElm(Model.open(path, options)) }

        /** What the model at [path] and one session would take in memory; nothing is loaded. */
        suspend fun memoryNeeded(path: String, options: LoadOptions = LoadOptions(cache = CacheType.F32)): Footprint =
            withContext(Dispatchers.IO) { footprint(path, options) }

        /** Reads all of the bundle at [path] and compares it with its hashes, once behind a download. */
        suspend fun verifyBundle(path: String) = withContext(Dispatchers.IO) { org.openelm.bindings.verifyBundle(path) }
    }

    /** What the model is. */
    val description: Description get() = model.describe()

    /** An empty session; of the model as the adapter at the path [adapter] changes it, if one is given. */
    suspend fun session(adapter: String? = null): OpenElmSession =
        withContext(Dispatchers.IO) {
            OpenElmSession(if (adapter == null) model.session() else model.sessionWith(adapter))
        }

    /** The ids of [text]; as those of a prompt unless told otherwise. */
    fun tokenize(text: String, isPrompt: Boolean = true): List<UInt> = model.tokenize(text, isPrompt)

    /** The text of [ids]. */
    fun detokenize(ids: List<UInt>): String = model.detokenize(ids)

    /** For `onTrimMemory`: gives back caches and packed weights. They come back when they are used. */
    fun releaseMemory() = model.releaseMemory()

    override fun close() = model.close()
}

/** A conversation with a model: it remembers what it has read and written, and goes on from there. */
class OpenElmSession internal constructor(private val session: Session) : AutoCloseable {
    /**
     * Reads [prompt] and writes on behind it, piece by piece, for whoever collects. Who stops collecting, or whose coroutine is
     * cancelled, ends the text at once; the session then holds the prompt and the pieces collected.
     */
    fun generate(prompt: String, options: GenerationOptions = GenerationOptions()): Flow<Piece> =
        pieces { session.generate(prompt, options) }

    /**
     * Answers the last of [messages], a conversation from its beginning. What the session holds of it already is not read again;
     * what it holds beyond is forgotten.
     */
    fun chat(messages: List<Message>, options: GenerationOptions = GenerationOptions()): Flow<Piece> =
        pieces { session.chat(messages, options) }

    private fun pieces(begin: () -> Generation): Flow<Piece> = flow {
        val generation = withContext(Dispatchers.IO) { begin() }
        generation.use {
            try {
                while (true) emit(generation.await() ?: break)
            } finally {
                generation.cancel()
            }
        }
    }

    /** Another session that begins with the same text. */
    suspend fun fork(): OpenElmSession = withContext(Dispatchers.IO) { OpenElmSession(session.fork()) }

    /** The text so far. */
    suspend fun text(): String = withContext(Dispatchers.IO) { session.text() }

    /** The tokens so far. */
    suspend fun tokens(): List<UInt> = withContext(Dispatchers.IO) { session.tokens() }

    /** Forgets all tokens from position [tokens] on. */
    suspend fun truncate(tokens: UInt) = withContext(Dispatchers.IO) { session.truncate(tokens) }

    override fun close() = session.close()
}

/** The next piece, waited for on a thread that may block; cancelling the coroutine ends the text. */
private suspend fun Generation.await(): Piece? = suspendCancellableCoroutine { continuation ->
    continuation.invokeOnCancellation { runCatching { cancel() } }
    Dispatchers.IO.asExecutor().execute { continuation.resumeWith(runCatching { next() }) }
}
