//! A panic ends the module; what it said is kept for the worker.

use std::sync::{Mutex, PoisonError};

use wasm_bindgen::prelude::*;

static DEFECT: Mutex<Option<String>> = Mutex::new(None);

#[wasm_bindgen(start)]
fn begin() {
    std::panic::set_hook(Box::new(|info| {
        *DEFECT.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
    }));
}

/// What the panic said that ended this module, if one did.
#[wasm_bindgen]
pub fn defect() -> Option<String> {
    DEFECT.lock().unwrap_or_else(PoisonError::into_inner).take()
}
