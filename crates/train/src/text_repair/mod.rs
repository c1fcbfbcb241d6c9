//! Repair of text before it is encoded.

#[cfg(feature = "text-repair")]
mod ftfy;

/// This build cannot repair text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this build repairs no text; build with the feature \"text-repair\"")]
pub struct NoTextRepair;

/// The function that repairs a text by ftfy's rules and brings it into Unicode's NFC, as CoreNet does before it encodes:
/// mojibake, HTML entities (up to the first line with a `<`, beyond which the text may be HTML itself), terminal escapes,
/// ligatures, full-width letters, curly quotes, line breaks and control characters.
///
/// # Errors
/// Without the feature `text-repair`.
pub fn text_repair() -> Result<fn(&str) -> String, NoTextRepair> {
    #[cfg(feature = "text-repair")]
    let repair: Result<fn(&str) -> String, NoTextRepair> = Ok(ftfy::clean);
    #[cfg(not(feature = "text-repair"))]
    let repair = Err(NoTextRepair);
    repair
}
