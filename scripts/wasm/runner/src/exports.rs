//! For a host that has no files: it writes them into memory, and reads the report there.

use std::sync::{Mutex, PoisonError};

use crate::{Files, report};

static FILES: Mutex<[Vec<u8>; 3]> = Mutex::new([const { Vec::new() }; 3]);
static REPORT: Mutex<String> = Mutex::new(String::new());

/// Where the host writes `length` bytes of the configuration (0), the weights (1) or the tokenizer (2).
#[unsafe(no_mangle)]
pub extern "C" fn room_for_file(index: usize, length: usize) -> *mut u8 {
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    files[index] = vec![0; length];
    files[index].as_mut_ptr()
}

/// Makes the report, or a line that begins with `error`; its length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn make_report() -> usize {
    let [config, weights, tokenizer] = std::mem::take(&mut *FILES.lock().unwrap_or_else(PoisonError::into_inner));
    let text = report(&Files { config, weights, tokenizer }).unwrap_or_else(|e| format!("error: {e}\n"));
    let length = text.len();
    *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = text;
    length
}

/// Where the report begins.
#[unsafe(no_mangle)]
pub extern "C" fn report_start() -> *const u8 {
    REPORT.lock().unwrap_or_else(PoisonError::into_inner).as_ptr()
}
