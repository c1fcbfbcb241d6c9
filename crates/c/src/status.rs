//! What a function returns, and the sentence behind it.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use openelm_ffi::{OpenElmError, guard};

/// How a call went.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It did what it should.
    Ok = 0,
    /// There is no further piece.
    End = 1,
    /// A model, tokenizer or adapter is missing, damaged, or of another model.
    File = 2,
    /// There is too little memory.
    Memory = 3,
    /// A prompt, an id, an option or a pointer makes no sense.
    Input = 4,
    /// The session is generating.
    Busy = 5,
    /// The handle was closed, or never was one.
    Closed = 6,
    /// The system gives no thread.
    Thread = 7,
    /// A defect of the library.
    Defect = 8,
}

/// What keeps a function from doing what it should.
pub(crate) enum Failure {
    Library(OpenElmError),
    Closed(&'static str),
    Null(&'static str),
    Text(&'static str),
    Option(&'static str, u32),
}

impl From<OpenElmError> for Failure {
    fn from(error: OpenElmError) -> Self {
        Self::Library(error)
    }
}

impl Failure {
    fn status(&self) -> Status {
        match self {
            Self::Library(error) => match error {
                OpenElmError::File(_) => Status::File,
                OpenElmError::Memory(_) => Status::Memory,
                OpenElmError::Input(_) => Status::Input,
                OpenElmError::Busy => Status::Busy,
                OpenElmError::Thread(_) => Status::Thread,
                OpenElmError::Defect(_) => Status::Defect,
            },
            Self::Closed(_) => Status::Closed,
            Self::Null(_) | Self::Text(_) | Self::Option(..) => Status::Input,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Library(error) => error.to_string(),
            Self::Closed(what) => format!("this {what} was closed, or never was one"),
            Self::Null(what) => format!("{what} is a null pointer"),
            Self::Text(what) => format!("{what} is not UTF-8"),
            Self::Option(what, value) => format!("{value} is no {what}"),
        }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// The sentence of this thread's last call that failed; valid until the thread calls again. Empty if none did.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|sentence| sentence.as_ptr())
}

/// Runs the body of a function; failures and panics become a status and a sentence.
pub(crate) fn call(body: impl FnOnce() -> Result<Status, Failure>) -> Status {
    let failure = match guard(|| Ok(body())) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(defect) => Failure::Library(defect),
    };
    let sentence = failure.sentence().replace('\0', " ");
    LAST_ERROR.set(CString::new(sentence).unwrap_or_default());
    failure.status()
}
