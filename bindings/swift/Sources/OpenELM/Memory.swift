import Dispatch
import Foundation

#if os(iOS)
import os
#endif

/// Bytes that the system lets this process still have; nothing where it does not say so (then the library asks in its own way).
public func availableMemory() -> UInt64? {
    #if os(iOS)
    return UInt64(os_proc_available_memory())
    #else
    return nil
    #endif
}

/// Calls back when the system is short of memory, as long as it lives.
final class MemoryPressure: @unchecked Sendable {
    private let source: any DispatchSourceMemoryPressure

    init(_ release: @escaping @Sendable () -> Void) {
        source = DispatchSource.makeMemoryPressureSource(eventMask: [.warning, .critical], queue: .global(qos: .utility))
        source.setEventHandler(handler: release)
        source.activate()
    }

    deinit {
        source.cancel()
    }
}
