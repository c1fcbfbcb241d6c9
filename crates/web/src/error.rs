//! Errors as JavaScript gets them.

use openelm_ffi::OpenElmError;
use wasm_bindgen::JsValue;

/// A kind for programs and a sentence for people: the string `kind: sentence`.
pub struct Failure {
    kind: &'static str,
    sentence: String,
}

impl Failure {
    /// There is too little memory.
    pub(crate) fn memory(sentence: String) -> Self {
        Self { kind: "memory", sentence }
    }
}

impl<E: Into<OpenElmError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let kind = match error {
            OpenElmError::File(_) => "file",
            OpenElmError::Memory(_) => "memory",
            OpenElmError::Input(_) => "input",
            OpenElmError::Busy => "busy",
            OpenElmError::Thread(_) | OpenElmError::Defect(_) => "defect",
        };
        Self { kind, sentence: error.to_string() }
    }
}

impl From<Failure> for JsValue {
    fn from(Failure { kind, sentence }: Failure) -> Self {
        format!("{kind}: {sentence}").into()
    }
}
