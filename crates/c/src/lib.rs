//! OpenELM for C: `include/openelm.h` is made of this crate. A thin layer over the handles of `openelm-ffi`.
//!
//! A handle is a number in a table (`handles`), so that one that was closed, or never was, is refused and does no harm. The
//! layout of a struct and the meaning of a function stay as they are within one [`API_VERSION`]; new needs get new functions.

#![allow(clippy::missing_safety_doc)] // The header's comment says it for all: pointers are valid, texts end with a zero byte.

mod generation;
mod handles;
mod model;
mod options;
mod owned;
mod session;
mod status;

pub use generation::*;
pub use model::*;
pub use options::*;
pub use owned::*;
pub use session::*;
pub use status::*;

/// The version of this interface: programs compiled with another one do not fit.
pub const API_VERSION: u32 = 1;

/// `OPENELM_API_VERSION` of the library that is linked.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_api_version() -> u32 {
    API_VERSION
}

/// The version of the library, such as "0.1.0"; it stays valid.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_version() -> *const std::ffi::c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
