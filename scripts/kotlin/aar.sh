#!/usr/bin/env bash
# Makes the Android library, where there are an Android NDK (ANDROID_NDK_HOME), the SDK (ANDROID_HOME), rustup, cargo-ndk 4 and
# Gradle: bindings/kotlin/build/outputs/aar/openelm-release.aar, with the shared libraries of three kinds of processor.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${ANDROID_NDK_HOME:?names the folder of the Android NDK, version 28 or later: its linker aligns to 16 KiB}"
package=bindings/kotlin target=${CARGO_TARGET_DIR:-target}
rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android
cargo ndk --target arm64-v8a --target armeabi-v7a --target x86_64 --platform 24 --output-dir "$package/build/jniLibs" \
  rustc --locked --profile size -p openelm-ffi --no-default-features --features uniffi,jinja --crate-type cdylib
# The metadata that Kotlin is generated from are stripped from the libraries above.
cargo rustc --locked --release -p openelm-ffi --features uniffi --crate-type cdylib
scripts/bindgen.sh kotlin "$(ls "$target"/release/libopenelm_ffi.{so,dylib} 2>/dev/null | head -1)" "$package/build/generated/kotlin"
(cd "$package" && gradle assembleRelease)
