import Foundation
import OpenELMBindings

/// A conversation with a model: it remembers what it has read and written, and goes on from there.
public final class OpenELMSession: Sendable {
    private let session: Session
    private let current = Current()

    init(_ session: Session) {
        self.session = session
    }

    /// Reads `prompt` and writes on behind it, piece by piece.
    ///
    /// Leaving the loop, or cancelling its task, ends the text at once; the session then holds the prompt and the pieces that were
    /// made. While the text goes on the session refuses other work.
    public func generate(
        _ prompt: String,
        options: GenerationOptions = GenerationOptions()
    ) throws -> AsyncThrowingStream<Piece, any Error> {
        stream(try session.generate(prompt: prompt, options: options))
    }

    /// Answers the last of `messages`, a conversation from its beginning. What the session holds of it already is not read again; what
    /// it holds beyond is forgotten.
    public func chat(
        _ messages: [Message],
        options: GenerationOptions = GenerationOptions()
    ) throws -> AsyncThrowingStream<Piece, any Error> {
        stream(try session.chat(messages: messages, options: options))
    }

    private func stream(_ generation: Generation) -> AsyncThrowingStream<Piece, any Error> {
        current.set(generation)
        return AsyncThrowingStream { continuation in
            continuation.onTermination = { _ in generation.cancel() }
            // A thread of its own: waiting for a piece blocks it.
            Thread.detachNewThread {
                do {
                    while let piece = try generation.next() {
                        continuation.yield(piece)
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }

    /// Computes no further than the next token until `resume`: for an app that goes to the background.
    public func pause() {
        current.get()?.pause()
    }

    /// Goes on after `pause`.
    public func resume() {
        current.get()?.resume()
    }

    /// Why the last text ended; nothing while it goes on.
    public var finish: Finish? { current.get()?.finish() }

    /// Another session that begins with the same text. What was computed of it is shared.
    public func fork() async throws -> OpenELMSession {
        let session = session
        return OpenELMSession(try await blocking { try session.fork() })
    }

    /// The text so far.
    public func text() async throws -> String {
        let session = session
        return try await blocking { try session.text() }
    }

    /// The tokens so far.
    public func tokens() async throws -> [UInt32] {
        let session = session
        return try await blocking { try session.tokens() }
    }

    /// Forgets all tokens from position `tokens` on.
    public func truncate(_ tokens: UInt32) async throws {
        let session = session
        try await blocking { try session.truncate(tokens: tokens) }
    }
}

/// The generation that `pause` means.
private final class Current: @unchecked Sendable {
    private let lock = NSLock()
    private var generation: Generation?

    func set(_ generation: Generation) {
        lock.withLock { self.generation = generation }
    }

    func get() -> Generation? {
        lock.withLock { generation }
    }
}
