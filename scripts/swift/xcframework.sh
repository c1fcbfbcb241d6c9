#!/usr/bin/env bash
# Makes what the Swift package needs, on a Mac with Xcode and rustup: OpenELMFFI.xcframework (iOS, its simulator, macOS) and the
# generated Swift. Prints the checksum that a release of the package names.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=bindings/swift target=${CARGO_TARGET_DIR:-target}
[ "$(uname)" = Darwin ] || { echo "an XCFramework is made on a Mac; scripts/ios/test.sh proves the rest elsewhere" >&2; exit 1; }
triples=(aarch64-apple-ios aarch64-apple-ios-sim x86_64-apple-ios aarch64-apple-darwin x86_64-apple-darwin)
rustup target add "${triples[@]}"
export IPHONEOS_DEPLOYMENT_TARGET=16.0 MACOSX_DEPLOYMENT_TARGET=13.0
for triple in "${triples[@]}"; do
  cargo rustc --locked --profile size -p openelm-ffi --no-default-features --features uniffi,jinja --crate-type staticlib --target "$triple"
done
# The metadata that Swift is generated from are stripped from the libraries above.
cargo rustc --locked --release -p openelm-ffi --features uniffi --crate-type cdylib
generated=$target/swift
scripts/bindgen.sh swift "$target/release/libopenelm_ffi.dylib" "$generated"
mkdir -p "$package/Sources/OpenELMBindings" "$generated/headers"
cp "$generated/OpenELMBindings.swift" "$package/Sources/OpenELMBindings/"
cp "$generated/OpenELMFFI.h" "$generated/headers/"
cp "$generated/OpenELMFFI.modulemap" "$generated/headers/module.modulemap"

join() { # join NAME TRIPLE...: one library of several architectures
  local name=$1
  shift
  mkdir -p "$generated/$name"
  lipo -create -output "$generated/$name/libopenelm_ffi.a" $(printf "$target/%s/size/libopenelm_ffi.a " "$@")
}
join ios aarch64-apple-ios
join simulator aarch64-apple-ios-sim x86_64-apple-ios
join macos aarch64-apple-darwin x86_64-apple-darwin
rm -rf "$package/OpenELMFFI.xcframework"
xcodebuild -create-xcframework -output "$package/OpenELMFFI.xcframework" \
  $(for name in ios simulator macos; do echo "-library $generated/$name/libopenelm_ffi.a -headers $generated/headers"; done)
(cd "$package" && ditto -c -k --keepParent OpenELMFFI.xcframework OpenELMFFI.xcframework.zip)
swift package compute-checksum "$package/OpenELMFFI.xcframework.zip"
