//! A text in the making.

use std::ffi::c_char;
use std::ptr;

use openelm_ffi as ffi;

use crate::handles::GENERATIONS;
pub use crate::handles::GenerationHandle;
use crate::owned::{give_list, give_text, openelm_text_free, place, take_list};
use crate::status::{Failure, Status, call};

/// A token that was drawn.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The logarithm of its probability by the model's own distribution, where it was asked for; otherwise NaN.
    pub log_probability: f32,
}

/// Some text, and the tokens drawn since the piece before. Give it back to `openelm_piece_free`.
#[repr(C)]
pub struct Piece {
    /// Whole characters. Only the last piece may be empty.
    pub text: *mut c_char,
    /// The tokens; the text of the last ones may come with the next piece.
    pub tokens: *mut Token,
    /// How many.
    pub token_count: usize,
}

/// Why a text ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It goes on.
    None = 0,
    /// The model ended it.
    EndOfText = 1,
    /// A stop string came.
    Stop = 2,
    /// As many tokens as asked for were made.
    MaxTokens = 3,
    /// The session takes no more tokens.
    ContextFull = 4,
    /// It was cancelled.
    Cancelled = 5,
}

fn with(generation: GenerationHandle, work: impl FnOnce(&ffi::Generation)) -> Result<Status, Failure> {
    work(&*GENERATIONS.get(generation.id)?);
    Ok(Status::Ok)
}

/// The next piece: waits for it. OPENELM_STATUS_END behind the last one, and once cancelled; `out` is then left empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_generation_next(generation: GenerationHandle, out: *mut Piece) -> Status {
    call(|| {
        let out = place(out)?;
        let next = GENERATIONS.get(generation.id).and_then(|generation| Ok(generation.next()?));
        let (piece, status) = match next {
            Ok(Some(ffi::Piece { text, tokens })) => {
                let token = |token: ffi::Token| {
                    let log_probability = token.log_probability.unwrap_or(f32::NAN);
                    Token { id: token.id, log_probability }
                };
                let (tokens, token_count) = give_list(tokens.into_iter().map(token).collect());
                (Piece { text: give_text(text), tokens, token_count }, Ok(Status::Ok))
            }
            other => {
                let nothing = Piece { text: ptr::null_mut(), tokens: ptr::null_mut(), token_count: 0 };
                (nothing, other.map(|_| Status::End))
            }
        };
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(piece) };
        status
    })
}

/// Gives back what a piece holds, and leaves nothing. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_piece_free(piece: *mut Piece) {
    // SAFETY: it is null or valid, as the header says, and what is in it was given out by `openelm_generation_next`.
    unsafe {
        if let Some(Piece { text, tokens, token_count }) = piece.as_mut() {
            openelm_text_free(std::mem::replace(text, ptr::null_mut()));
            take_list(tokens, token_count);
        }
    }
}

/// Why the text ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_generation_finish(generation: GenerationHandle, out: *mut Finish) -> Status {
    call(|| {
        let out = place(out)?;
        let finish = match GENERATIONS.get(generation.id)?.finish() {
            None => Finish::None,
            Some(ffi::Finish::EndOfText) => Finish::EndOfText,
            Some(ffi::Finish::Stop) => Finish::Stop,
            Some(ffi::Finish::MaxTokens) => Finish::MaxTokens,
            Some(ffi::Finish::ContextFull) => Finish::ContextFull,
            Some(ffi::Finish::Cancelled) => Finish::Cancelled,
        };
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(finish) };
        Ok(Status::Ok)
    })
}

/// Ends the text at once, whatever the library is at; who waits for a piece gets OPENELM_STATUS_END. The session holds the prompt and
/// the tokens handed out.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_generation_cancel(generation: GenerationHandle) -> Status {
    call(|| with(generation, ffi::Generation::cancel))
}

/// Stops computing behind the next token until `openelm_generation_resume`.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_generation_pause(generation: GenerationHandle) -> Status {
    call(|| with(generation, ffi::Generation::pause))
}

/// Goes on after `openelm_generation_pause`.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_generation_resume(generation: GenerationHandle) -> Status {
    call(|| with(generation, ffi::Generation::resume))
}

/// Cancels what still goes on, waits for its thread to end, and closes it.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_generation_close(generation: GenerationHandle) -> Status {
    call(|| {
        let generation = GENERATIONS.remove(generation.id)?;
        generation.cancel();
        generation.join();
        Ok(Status::Ok)
    })
}
