//! The parts of a GGUF file, taken apart with every length checked against what is there.

use std::collections::HashMap;

use super::types::encoding_of;
use super::{ALIGNMENT, MAGIC};

/// Arrays of arrays deeper than this are no metadata of a model.
const MAX_DEPTH: usize = 4;
/// More dimensions than any tensor has.
const MAX_DIMENSIONS: u32 = 4;

/// A value of the metadata; all widths of a kind are one here. A number is a number, of whichever type: writers differ in
/// what they take for which key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

impl Value {
    pub fn as_usize(&self) -> Option<usize> {
        // Beyond it not every whole number is a float.
        const EXACT: f64 = (1u64 << 53) as f64;
        match self {
            Value::Integer(value) => usize::try_from(*value).ok(),
            Value::Float(value) if value.fract() == 0.0 && (0.0..=EXACT).contains(value) => Some(*value as usize),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorInfo {
    pub name: String,
    /// Outermost first, as everywhere in this project; the file has it the other way round.
    pub shape: Vec<usize>,
    /// ggml's number of the type.
    pub kind: u32,
    /// From the beginning of the file.
    pub offset: usize,
}

/// Everything but the tensors' bytes.
#[derive(Debug)]
pub(super) struct Header {
    pub values: HashMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
}

/// Takes the beginning of a file apart.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if cursor.take(4)? != MAGIC {
        return Err("it does not begin with GGUF".to_owned());
    }
    let version = cursor.u32()?;
    if (1..=3).contains(&version.swap_bytes()) {
        return Err("it is big-endian; little-endian files can be read (llama.cpp's gguf_convert_endian.py turns it)"
            .to_owned());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("its version is {version}; 2 and 3 can be read"));
    }
    let (tensor_count, value_count) = (cursor.u64()?, cursor.u64()?);
    let mut values = HashMap::new();
    for _ in 0..value_count {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0).map_err(|e| format!("key {key}: {e}"))?;
        if values.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key} is there twice"));
        }
    }
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(cursor.tensor_info()?);
    }
    let alignment = values.get("general.alignment").map_or(Some(ALIGNMENT), Value::as_usize);
    let alignment = alignment.filter(|a| a.is_power_of_two()).ok_or("general.alignment is no power of two")?;
    let data = cursor.at.checked_next_multiple_of(alignment).ok_or("it is too long")?;
    for tensor in &mut tensors {
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(format!("tensor {} is not aligned", tensor.name));
        }
        tensor.offset =
            tensor.offset.checked_add(data).ok_or_else(|| format!("tensor {} lies nowhere", tensor.name))?;
    }
    check_apart(&tensors)?;
    Ok(Header { values, tensors })
}

/// Refuses tensors that share bytes. What is of an unknown type or no sensible shape is refused later, by its name.
fn check_apart(tensors: &[TensorInfo]) -> Result<(), String> {
    let place = |tensor: &TensorInfo| {
        let size = encoding_of(tensor.kind)?.bytes_of(&tensor.shape).filter(|&size| size > 0)?;
        Some((tensor.offset, tensor.offset.saturating_add(size)))
    };
    let mut places: Vec<_> = tensors.iter().filter_map(|tensor| Some((place(tensor)?, &tensor.name))).collect();
    places.sort();
    match places.windows(2).find(|pair| pair[0].0.1 > pair[1].0.0) {
        Some(pair) => Err(format!("tensors {} and {} overlap", pair[0].1, pair[1].1)),
        None => Ok(()),
    }
}

/// Reads on through bytes that may end anywhere.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("it ends at byte {}, in the middle of its header", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, String> {
        let length = self.u64()?;
        usize::try_from(length).map_err(|_| format!("a length of {length} is impossible"))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 if depth < MAX_DEPTH => {
                let (kind, length) = (self.u32()?, self.length()?);
                // Every element takes a byte at least: a length beyond that is a lie, and nothing is allocated for it.
                if length > self.bytes.len() - self.at {
                    return Err(format!("an array of {length} elements does not fit the file"));
                }
                Value::Array((0..length).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>()?)
            }
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("values of type {other} are unknown")),
        })
    }

    fn tensor_info(&mut self) -> Result<TensorInfo, String> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(format!("tensor {name} has {dimensions} dimensions"));
        }
        let mut shape = (0..dimensions).map(|_| self.length()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        Ok(TensorInfo { name, shape, kind: self.u32()?, offset: self.length()? })
    }
}
