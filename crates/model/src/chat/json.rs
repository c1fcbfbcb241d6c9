//! `tojson` as transformers gives it to chat templates: what Python's `json.dumps` writes, with characters as they are.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// The filter `tojson`, with its argument `indent`.
pub(super) fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Further arguments (separators, sorted keys) are for tools, which there are none of.
    options.assert_all_used()?;
    let mut out = Bounded { bytes: Vec::new(), state };
    let written = match indent {
        Some(indent) => {
            let indent = vec![b' '; indent.min(16)];
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(&indent)))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    if written.is_err() {
        // Out of fuel, or a value that has no JSON: the first is asked for again.
        state.consume_fuel(1)?;
        return Err(Error::new(ErrorKind::BadSerialization, "a value cannot be written as JSON"));
    }
    String::from_utf8(out.bytes).map_err(|_| ErrorKind::BadSerialization.into())
}

/// Pays for what is written.
struct Bounded<'s, 'a, 'b> {
    bytes: Vec<u8>,
    state: &'s State<'a, 'b>,
}

impl io::Write for Bounded<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.consume_fuel(1).map_err(io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Python's separators: a space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
