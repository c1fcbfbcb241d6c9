//! A text that a model goes on with.

use std::ffi::c_char;
use std::sync::Arc;

use openelm_ffi::{self as ffi, OpenElmError, Session};

pub use crate::handles::SessionHandle;
use crate::handles::{GENERATIONS, GenerationHandle, MODELS, ModelHandle, SESSIONS};
use crate::options::{GenerationOptions, generation_options};
use crate::owned::{Ids, give_list, give_text, place, text};
use crate::status::{Failure, Status, call};

/// One turn of a conversation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Who speaks: "system", "user" or "assistant".
    pub role: *const c_char,
    /// What is said.
    pub content: *const c_char,
}

/// # Safety
/// `out` is null or valid.
unsafe fn open(
    out: *mut SessionHandle,
    session: impl FnOnce() -> Result<Arc<Session>, Failure>,
) -> Result<Status, Failure> {
    let out = place(out)?;
    let id = SESSIONS.insert(session()?);
    // SAFETY: it is not null, and valid by the caller.
    unsafe { out.write(SessionHandle { id }) };
    Ok(Status::Ok)
}

fn with(session: SessionHandle, work: impl FnOnce(&Session) -> Result<(), OpenElmError>) -> Status {
    call(|| {
        work(&*SESSIONS.get(session.id)?)?;
        Ok(Status::Ok)
    })
}

/// An empty session. Close it with `openelm_session_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_session_open(model: ModelHandle, out: *mut SessionHandle) -> Status {
    // SAFETY: the place is null or valid, as the header says.
    call(|| unsafe { open(out, || Ok(MODELS.get(model.id)?.session()?)) })
}

/// An empty session of the model as the adapter at `path` changes it: a folder of PEFT's, or a file of CoreNet's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_session_open_adapted(
    model: ModelHandle,
    path: *const c_char,
    out: *mut SessionHandle,
) -> Status {
    // SAFETY: the pointers are null or valid, as the header says.
    call(|| unsafe { open(out, || Ok(MODELS.get(model.id)?.session_with(text(path, "the adapter's path")?)?)) })
}

/// Another session that begins with the same text. What was computed of it is shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_session_fork(session: SessionHandle, out: *mut SessionHandle) -> Status {
    // SAFETY: the place is null or valid, as the header says.
    call(|| unsafe { open(out, || Ok(SESSIONS.get(session.id)?.fork()?)) })
}

/// Closes the session. A generation of it goes on.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_session_close(session: SessionHandle) -> Status {
    call(|| {
        SESSIONS.remove(session.id)?;
        Ok(Status::Ok)
    })
}

/// The text so far. Give it back to `openelm_text_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_session_text(session: SessionHandle, out: *mut *mut c_char) -> Status {
    call(|| {
        let out = place(out)?;
        let text = SESSIONS.get(session.id)?.text()?;
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(give_text(text)) };
        Ok(Status::Ok)
    })
}

/// The tokens so far. Give them back to `openelm_ids_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_session_tokens(session: SessionHandle, out: *mut Ids) -> Status {
    call(|| {
        let out = place(out)?;
        let (ids, count) = give_list(SESSIONS.get(session.id)?.tokens()?);
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(Ids { ids, count }) };
        Ok(Status::Ok)
    })
}

/// Forgets all tokens from position `tokens` on.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_session_truncate(session: SessionHandle, tokens: u32) -> Status {
    with(session, |session| session.truncate(tokens))
}

/// Gives back the keys and values; they are computed again, to the same bits, when the session goes on.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_session_drop_cache(session: SessionHandle) -> Status {
    with(session, Session::drop_cache)
}

/// Reads `prompt` and writes on behind it, on a thread of its own. The session is busy until the text has ended or was
/// cancelled. `options` may be null. Close it with `openelm_generation_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_generate(
    session: SessionHandle,
    prompt: *const c_char,
    options: *const GenerationOptions,
    out: *mut GenerationHandle,
) -> Status {
    call(|| {
        let out = place(out)?;
        // SAFETY: the pointers are null or valid, as the header says.
        let (prompt, options) = unsafe { (text(prompt, "the prompt")?, generation_options(options)?) };
        let id = GENERATIONS.insert(SESSIONS.get(session.id)?.generate(prompt, options)?);
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(GenerationHandle { id }) };
        Ok(Status::Ok)
    })
}

/// Answers the last of `count` messages, a conversation from its beginning. What the session holds of it already is not read again;
/// what it holds beyond is forgotten. Otherwise as `openelm_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_chat(
    session: SessionHandle,
    messages: *const Message,
    count: usize,
    options: *const GenerationOptions,
    out: *mut GenerationHandle,
) -> Status {
    call(|| {
        let out = place(out)?;
        if messages.is_null() {
            return Err(Failure::Null("the list of messages"));
        }
        // SAFETY: it is not null, and the caller says that there are that many.
        let messages = unsafe { std::slice::from_raw_parts(messages, count) }.iter().map(|message| {
            // SAFETY: the texts are null or end with a zero byte, as the header says.
            let [role, content] = unsafe { [text(message.role, "a role"), text(message.content, "a content")] };
            Ok(ffi::Message { role: role?, content: content? })
        });
        let messages = messages.collect::<Result<Vec<_>, Failure>>()?;
        // SAFETY: the options are null or valid, as the header says.
        let options = unsafe { generation_options(options) }?;
        let id = GENERATIONS.insert(SESSIONS.get(session.id)?.chat(messages, options)?);
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(GenerationHandle { id }) };
        Ok(Status::Ok)
    })
}
