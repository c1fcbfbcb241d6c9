//! Devices whose memory bandwidth somebody has published.

use super::Purpose;

/// How a bandwidth is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A model read so much while it decoded.
    Measured,
    /// What the memory could give at most.
    Limit,
}

/// A device, and how fast it reads its memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    /// Its name.
    pub name: &'static str,
    /// What runs on it.
    pub purpose: Purpose,
    /// Bytes a second.
    pub bandwidth: f64,
    /// How that is known.
    pub known: Known,
    /// Who says so.
    pub source: &'static str,
}

/// Devices, for each purpose the slowest last.
pub const DEVICES: [Device; 5] = [
    Device {
        name: "iPad Pro with M2",
        purpose: Purpose::Ios,
        bandwidth: 102.4e9,
        known: Known::Limit,
        source: "github.com/ggml-org/llama.cpp/pull/1642",
    },
    Device {
        name: "iPhone 17 Pro",
        purpose: Purpose::Ios,
        bandwidth: 69e9,
        known: Known::Measured,
        source: "apple-silicon-llm-bench: 0.95 GB at 73 tokens/s under MLX",
    },
    Device {
        name: "iPad Pro with M1",
        purpose: Purpose::Ios,
        bandwidth: 68.2e9,
        known: Known::Limit,
        source: "github.com/ggml-org/llama.cpp/pull/1642",
    },
    Device {
        name: "phone with Snapdragon 8 Gen 3",
        purpose: Purpose::Android,
        bandwidth: 68.3e9,
        known: Known::Limit,
        source: "64 pins of LPDDR5X at 8.533 Gbit/s: github.com/CMU-SAFARI/ramulator2/pull/217",
    },
    Device {
        name: "Raspberry Pi 5",
        purpose: Purpose::Android,
        bandwidth: 10.2e9,
        known: Known::Measured,
        source: "github.com/ggml-org/llama.cpp/issues/26484",
    },
];
