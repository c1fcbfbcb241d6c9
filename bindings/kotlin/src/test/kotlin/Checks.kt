/*
 * Tries the package on the JVM: Checks MODEL EXPECTED_TEXT_FILE ROUNDS. Ends with an exception at the first thing that is not as
 * it should be.
 */

import java.io.File
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.openelm.OpenElm
import org.openelm.OpenElmSession
import org.openelm.bindings.CacheType
import org.openelm.bindings.GenerationOptions
import org.openelm.bindings.LoadOptions
import org.openelm.bindings.OpenElmException
import org.openelm.bindings.Piece

const val PROMPT = "Once upon a time"

fun greedy(tokens: Int) = GenerationOptions(maxTokens = tokens.toUInt(), temperature = 0f)

fun text(pieces: List<Piece>) = pieces.joinToString("") { it.text }

inline fun <reified E : Throwable> refused(work: () -> Unit): E {
    try {
        work()
    } catch (error: Throwable) {
        check(error is E) { "$error" }
        return error
    }
    error("it was not refused")
}

suspend fun texts(model: OpenElm, expected: String) {
    val session = model.session()
    check(text(session.generate(PROMPT, greedy(40)).toList()) == expected)
    check(session.text() == PROMPT + expected)
    session.truncate(model.tokenize(PROMPT).size.toUInt())
    // Who takes five pieces finds the session with those five.
    val first = session.generate(PROMPT.take(0), greedy(40)).take(5).toList()
    check(session.text() == PROMPT + text(first))
    model.releaseMemory()
    val rest = session.generate("", greedy(40 - first.sumOf { it.tokens.size })).toList()
    check(text(first) + text(rest) == expected)
    session.close()
    refused<IllegalStateException> { session.text() }
}

suspend fun mistakes(model: OpenElm, path: String) {
    val missing = refused<OpenElmException.File> { OpenElm.open("no/such/model") }
    check("no/such/model" in missing.message!!) { missing.message!! }
    refused<OpenElmException.Memory> { OpenElm.open(path, LoadOptions(cache = CacheType.F32, memory = 1u)) }
    val session = model.session()
    refused<OpenElmException.Input> { session.generate(PROMPT, GenerationOptions(topP = Float.NaN)).collect() }
    refused<OpenElmException.Input> { session.generate("word ".repeat(1000), greedy(1)).collect() }
    session.close()
}

fun cancellation(model: OpenElm) = runBlocking {
    val session = model.session()
    val job = launch { session.generate(PROMPT, greedy(240)).collect { delay(5) } }
    delay(100)
    job.cancelAndJoin()
    check(session.tokens().size < 240)
    session.close()
}

suspend fun round(path: String) {
    OpenElm.open(path).use { model ->
        model.session().use { session -> session.generate(PROMPT, greedy(100)).take(3).collect() }
    }
}

/** KiB of memory that are this process's own; the JVM's heap among them. */
fun resident() = File("/proc/self/status").readLines().first { it.startsWith("RssAnon") }.filter(Char::isDigit).toLong()

fun main(arguments: Array<String>) = runBlocking {
    val (path, expected, rounds) = arguments
    OpenElm.open(path).use { model ->
        check(model.description.layers > 0u)
        texts(model, File(expected).readText())
        mistakes(model, path)
        cancellation(model)
    }
    check(OpenElm.memoryNeeded(path).total > 0u)
    var before = 0L
    for (index in 1..rounds.toInt()) {
        round(path)
        if (index == rounds.toInt() / 5) before = resident()
    }
    println("$rounds rounds: $before KiB after a fifth of them, ${resident()} KiB at the end")
    // A leak of 16 KiB a round would be seen; below that compiled code and classes come.
    check(rounds.toInt() < 1000 || resident() - before < 16 * rounds.toLong())
}
