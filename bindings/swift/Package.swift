// swift-tools-version: 6.0
// scripts/swift/xcframework.sh makes what this needs and git does not hold: OpenELMFFI.xcframework, Sources/OpenELMBindings.
import PackageDescription

let package = Package(
    name: "OpenELM",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "OpenELM", targets: ["OpenELM"])],
    targets: [
        .binaryTarget(name: "OpenELMFFI", path: "OpenELMFFI.xcframework"),
        // Generated code is a module of its own: it does not compile where the main actor is the default one.
        .target(name: "OpenELMBindings", dependencies: ["OpenELMFFI"], swiftSettings: [.swiftLanguageMode(.v5)]),
        .target(name: "OpenELM", dependencies: ["OpenELMBindings"]),
        .testTarget(name: "OpenELMTests", dependencies: ["OpenELM"]),
    ]
)
