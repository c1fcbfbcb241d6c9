import Foundation
import OpenELMBindings

public typealias CacheType = OpenELMBindings.CacheType
public typealias Description = OpenELMBindings.Description
public typealias Finish = OpenELMBindings.Finish
public typealias Footprint = OpenELMBindings.Footprint
public typealias GenerationOptions = OpenELMBindings.GenerationOptions
public typealias LoadOptions = OpenELMBindings.LoadOptions
public typealias Message = OpenELMBindings.Message
public typealias OpenElmError = OpenELMBindings.OpenElmError
public typealias Piece = OpenELMBindings.Piece

/// A model with its tokenizer, ready to run.
///
///     let model = try await OpenELM(path: folder.path)
///     for try await piece in try await model.session().generate("Once upon a time") {
///         print(piece.text, terminator: "")
///     }
///
/// It may be used from any actor: work is done on threads of its own. When the system is short of memory it gives back caches and
/// packed weights, which come back when they are used.
public final class OpenELM: Sendable {
    private let model: Model
    private let pressure: MemoryPressure

    /// Opens the model at `path`: a folder of Hugging Face or MLX, or a `.gguf` or `.safetensors` file.
    ///
    /// Before anything is loaded, what it takes is compared with `budget`, or with what the system says is left for this process.
    public init(
        path: String,
        options: LoadOptions = LoadOptions(cache: .f16),
        budget: UInt64? = availableMemory()
    ) async throws {
        var options = options
        options.memory = options.memory ?? budget
        let chosen = options
        let model = try await blocking { try Model.open(path: path, options: chosen) }
        self.model = model
        pressure = MemoryPressure { model.releaseMemory() }
    }

    /// What the model at `path` and one session of it would take; nothing is loaded.
    public static func memoryNeeded(
        path: String,
        options: LoadOptions = LoadOptions(cache: .f16)
    ) async throws -> Footprint {
        try await blocking { try footprint(path: path, options: options) }
    }

    /// Reads all of the bundle at `path` and compares it with its hashes, once behind a download.
    public static func verifyBundle(path: String) async throws {
        try await blocking { try OpenELMBindings.verifyBundle(path: path) }
    }

    /// What the model is.
    public var description: Description { model.describe() }

    /// An empty session; of the model as the adapter at the path `adapter` changes it, if one is given.
    public func session(adapter: String? = nil) async throws -> OpenELMSession {
        let model = model
        return OpenELMSession(try await blocking {
            if let adapter { try model.sessionWith(adapter: adapter) } else { try model.session() }
        })
    }

    /// Writes on behind `prompt` in a session of its own.
    public func generate(
        _ prompt: String,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> AsyncThrowingStream<Piece, any Error> {
        try await session().generate(prompt, options: options)
    }

    /// The ids of `text`; as those of a prompt unless told otherwise.
    public func tokenize(_ text: String, isPrompt: Bool = true) throws -> [UInt32] {
        try model.tokenize(text: text, isPrompt: isPrompt)
    }

    /// The text of `ids`.
    public func detokenize(_ ids: [UInt32]) throws -> String {
        try model.detokenize(ids: ids)
    }

    /// Gives back caches and packed weights. They come back when they are used.
    public func releaseMemory() {
        model.releaseMemory()
    }
}

/// Does `work` on a thread that may block; the threads of Swift's concurrency must not.
func blocking<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async {
            continuation.resume(with: Result { try work() })
        }
    }
}
