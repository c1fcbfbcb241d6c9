//! What crosses the border: texts that come in, and memory that goes out and comes back.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use crate::status::Failure;

/// Token ids. Give them back to `openelm_ids_free`.
#[repr(C)]
pub struct Ids {
    /// The ids; null if there are none.
    pub ids: *mut u32,
    /// How many.
    pub count: usize,
}

/// A text that the caller lends.
///
/// # Safety
/// `text` is null or ends with a zero byte.
pub(crate) unsafe fn text(text: *const c_char, what: &'static str) -> Result<String, Failure> {
    if text.is_null() {
        return Err(Failure::Null(what));
    }
    // SAFETY: it is not null, and the caller says that it ends with a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(str::to_owned).map_err(|_| Failure::Text(what))
}

/// Checks the place for a result before any work is done.
pub(crate) fn place<T>(out: *mut T) -> Result<*mut T, Failure> {
    if out.is_null() { Err(Failure::Null("the place for the result")) } else { Ok(out) }
}

/// A text that the caller will own: `openelm_text_free` takes it back.
pub(crate) fn give_text(text: String) -> *mut c_char {
    // A zero byte that a model wrote would end the text.
    CString::new(text.replace('\0', "\u{FFFD}")).unwrap_or_default().into_raw()
}

/// A list that the caller will own: its address, null if it is empty, and its length.
pub(crate) fn give_list<T>(list: Vec<T>) -> (*mut T, usize) {
    let count = list.len();
    if count == 0 {
        return (ptr::null_mut(), 0);
    }
    (Box::into_raw(list.into_boxed_slice()).cast(), count)
}

/// Takes back what [`give_list`] gave, and leaves nothing behind.
///
/// # Safety
/// The two are as `give_list` gave them, or null.
pub(crate) unsafe fn take_list<T>(list: &mut *mut T, count: &mut usize) {
    let (start, length) = (std::mem::replace(list, ptr::null_mut()), std::mem::take(count));
    if !start.is_null() {
        // SAFETY: `give_list` made it of a box of that length, and the null left behind lets nobody take it twice.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, length)) });
    }
}

/// Gives back a text. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_text_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: `give_text` made it, as the header says.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Gives back ids, and leaves none. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_ids_free(ids: *mut Ids) {
    // SAFETY: it is null or valid, as the header says.
    if let Some(Ids { ids, count }) = unsafe { ids.as_mut() } {
        // SAFETY: `give_list` made them.
        unsafe { take_list(ids, count) };
    }
}
