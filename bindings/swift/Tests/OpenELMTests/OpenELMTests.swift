import Foundation
import Testing

@testable import OpenELM

/// The folder of a model, for example models/storyteller of the repository.
private let path = ProcessInfo.processInfo.environment["OPENELM_MODEL"] ?? "../../models/storyteller"
private let prompt = "Once upon a time"

private func greedy(_ tokens: UInt32) -> GenerationOptions {
    GenerationOptions(maxTokens: tokens, temperature: 0)
}

private func text(_ pieces: AsyncThrowingStream<Piece, any Error>) async throws -> String {
    try await pieces.reduce(into: "") { $0 += $1.text }
}

@Test func aTextComesInPieces() async throws {
    let session = try await OpenELM(path: path).session()
    let whole = try await text(session.generate(prompt, options: greedy(40)))
    #expect(try await session.text() == prompt + whole)
    #expect(session.finish == .maxTokens)
}

@Test func leavingTheLoopCancels() async throws {
    let session = try await OpenELM(path: path).session()
    for try await _ in try session.generate(prompt, options: greedy(200)) { break }
    #expect(try await session.tokens().count < 200)
}

@Test func memoryThatWasGivenBackReturns() async throws {
    let model = try await OpenELM(path: path)
    let session = try await model.session()
    let first = try await text(session.generate(prompt, options: greedy(20)))
    model.releaseMemory()
    let rest = try await text(session.generate("", options: greedy(20)))
    let whole = try await text(model.generate(prompt, options: greedy(40)))
    #expect(first + rest == whole)
}

@Test func tooLittleMemoryIsRefused() async {
    await #expect(throws: OpenElmError.self) { try await OpenELM(path: path, budget: 1) }
    await #expect(throws: OpenElmError.self) { try await OpenELM(path: "no/such/model") }
}

@Test func aThousandRoundsLeaveNothing() async throws {
    for _ in 0..<1000 {
        let session = try await OpenELM(path: path).session()
        for try await _ in try session.generate(prompt, options: greedy(100)) { break }
    }
}
