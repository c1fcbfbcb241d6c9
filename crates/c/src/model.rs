//! Opening a model and asking what it is.

use std::ffi::c_char;
use std::ptr;

use openelm_ffi as ffi;

use crate::handles::MODELS;
pub use crate::handles::ModelHandle;
use crate::options::{LoadOptions, load_options};
use crate::owned::{Ids, give_list, give_text, openelm_ids_free, openelm_text_free, place, text};
use crate::status::{Status, call};

/// Memory that a model and one session take, in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// The weights; pages of a mapped file count as they come into memory.
    pub weights: u64,
    /// Keys and values of a full context.
    pub cache: u64,
    /// Everything else.
    pub buffers: u64,
    /// All of it.
    pub total: u64,
}

/// What a model is. Give it back to `openelm_description_free`.
#[repr(C)]
pub struct Description {
    /// The name of the released model that has this geometry; null if there is none.
    pub name: *mut c_char,
    /// The format it was found in.
    pub format: *mut c_char,
    /// Parameters; a tied output projection counts once.
    pub parameters: u64,
    /// Bytes of the weights as they run.
    pub weight_bytes: u64,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Entries of the vocabulary.
    pub vocabulary: u32,
    /// Most tokens of a session.
    pub context: u32,
    /// The token that begins a text, or -1.
    pub begin: i64,
    /// The tokens that end one.
    pub ends: Ids,
}

/// What the model at `path` and one session of it would take; nothing is loaded. `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_memory_needed(
    path: *const c_char,
    options: *const LoadOptions,
    out: *mut Footprint,
) -> Status {
    call(|| {
        let out = place(out)?;
        // SAFETY: the pointers are null or valid, as the header says.
        let (path, options) = unsafe { (text(path, "the path")?, load_options(options)?) };
        let ffi::Footprint { weights, cache, buffers, total } = ffi::footprint(path, options)?;
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(Footprint { weights, cache, buffers, total }) };
        Ok(Status::Ok)
    })
}

/// Bytes that this process can still have; 0 where the system does not say.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_memory_available() -> u64 {
    ffi::free_memory().unwrap_or(0)
}

/// Reads all of the bundle at `path` and compares it with its hashes, as an app does once behind a download; opening looks at
/// everything but the hash of the weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_bundle_verify(path: *const c_char) -> Status {
    call(|| {
        // SAFETY: it is null or valid, as the header says.
        let path = unsafe { text(path, "the path")? };
        ffi::verify_bundle(path)?;
        Ok(Status::Ok)
    })
}

/// Opens the model at `path`: a folder of Hugging Face, MLX or CoreNet, a bundle, or a .gguf, .pt or .safetensors file; or "builtin", where
/// a model was compiled in. Memory is asked for before anything is loaded. `options` may be null. Close it with
/// `openelm_model_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_model_open(
    path: *const c_char,
    options: *const LoadOptions,
    out: *mut ModelHandle,
) -> Status {
    call(|| {
        let out = place(out)?;
        // SAFETY: the pointers are null or valid, as the header says.
        let (path, options) = unsafe { (text(path, "the path")?, load_options(options)?) };
        let id = MODELS.insert(ffi::Model::open(path, options)?);
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(ModelHandle { id }) };
        Ok(Status::Ok)
    })
}

/// Closes the model. Its sessions go on.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_model_close(model: ModelHandle) -> Status {
    call(|| {
        MODELS.remove(model.id)?;
        Ok(Status::Ok)
    })
}

/// What the model is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_model_describe(model: ModelHandle, out: *mut Description) -> Status {
    call(|| {
        let out = place(out)?;
        let described = MODELS.get(model.id)?.describe();
        let (ids, count) = give_list(described.ends);
        let description = Description {
            name: described.name.map_or(ptr::null_mut(), give_text),
            format: give_text(described.format),
            parameters: described.parameters,
            weight_bytes: described.weight_bytes,
            layers: described.layers,
            width: described.width,
            vocabulary: described.vocabulary,
            context: described.context,
            begin: described.begin.map_or(-1, i64::from),
            ends: Ids { ids, count },
        };
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(description) };
        Ok(Status::Ok)
    })
}

/// Gives back what a description holds, and leaves nothing. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_description_free(description: *mut Description) {
    // SAFETY: it is null or valid, as the header says, and what is in it was given out by `openelm_model_describe`.
    unsafe {
        if let Some(description) = description.as_mut() {
            openelm_text_free(std::mem::replace(&mut description.name, ptr::null_mut()));
            openelm_text_free(std::mem::replace(&mut description.format, ptr::null_mut()));
            openelm_ids_free(&mut description.ends);
        }
    }
}

/// The ids of `text`; as those of a prompt, behind the token that begins a text if the model wants one. Give them back to
/// `openelm_ids_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_tokenize(
    model: ModelHandle,
    text: *const c_char,
    is_prompt: bool,
    out: *mut Ids,
) -> Status {
    call(|| {
        let out = place(out)?;
        // SAFETY: it is null or valid, as the header says.
        let text = unsafe { crate::owned::text(text, "the text") }?;
        let (ids, count) = give_list(MODELS.get(model.id)?.tokenize(text, is_prompt)?);
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(Ids { ids, count }) };
        Ok(Status::Ok)
    })
}

/// The text of `count` ids; those beyond the vocabulary are passed over. Give it back to `openelm_text_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openelm_detokenize(
    model: ModelHandle,
    ids: *const u32,
    count: usize,
    out: *mut *mut c_char,
) -> Status {
    call(|| {
        let out = place(out)?;
        let ids = match (ids.is_null(), count) {
            (_, 0) => Vec::new(),
            (true, _) => return Err(crate::status::Failure::Null("the list of ids")),
            // SAFETY: the caller says that there are that many.
            (false, count) => unsafe { std::slice::from_raw_parts(ids, count) }.to_vec(),
        };
        let text = MODELS.get(model.id)?.detokenize(ids)?;
        // SAFETY: it is not null, and valid as the header says.
        unsafe { out.write(give_text(text)) };
        Ok(Status::Ok)
    })
}

/// Gives back what the system may want: caches of sessions that are not generating, and packed weights. Sessions keep their
/// tokens; whatever is used again is read and computed again.
#[unsafe(no_mangle)]
pub extern "C" fn openelm_model_release_memory(model: ModelHandle) -> Status {
    call(|| {
        MODELS.get(model.id)?.release_memory();
        Ok(Status::Ok)
    })
}
