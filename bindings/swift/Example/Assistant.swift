import Foundation
import OpenELM
import Observation

/// The model, and the one text that it is at.
@MainActor @Observable
final class Assistant {
    private(set) var message: String?
    private(set) var isWriting = false
    private var model: OpenELM?
    private var session: OpenELMSession?
    private var task: Task<Void, Never>?

    var isReady: Bool { model != nil }

    func load() async {
        let path = URL.documentsDirectory.appending(path: "OpenELM").path()
        do {
            model = try await OpenELM(path: path)
        } catch {
            message = error.localizedDescription
        }
    }

    /// Writes on behind `prompt` and hands over each piece of text.
    func write(_ prompt: String, each: @escaping @MainActor (String) -> Void) {
        run(each: each) { try $0.generate(prompt) }
    }

    /// Answers the last of `messages` and hands over each piece of text.
    func answer(_ messages: [Message], each: @escaping @MainActor (String) -> Void) {
        run(each: each) { try $0.chat(messages) }
    }

    private func run(
        each: @escaping @MainActor (String) -> Void,
        begin: @escaping @MainActor (OpenELMSession) throws -> AsyncThrowingStream<Piece, any Error>
    ) {
        guard let model, !isWriting else { return }
        isWriting = true
        message = nil
        task = Task {
            defer { isWriting = false }
            do {
                let session = try await model.session()
                self.session = session
                for try await piece in try begin(session) {
                    each(piece.text)
                }
            } catch {
                message = error.localizedDescription
            }
        }
    }

    func stop() { task?.cancel() }
    func pause() { session?.pause() }
    func resume() { session?.resume() }
}
