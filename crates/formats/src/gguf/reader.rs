//! Reading a file: mapped, with tensors left where they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openelm_kernels::MappedFile;
use openelm_model::{Encoding, Stack, Tensor, sites};

use super::names::places;
use super::parse::{Header, TensorInfo, Value, parse};
use super::rotation::is_interleaved;
use super::{metadata, tokenizer, types};
use crate::stored::{Format, Source, StoredModel};
use crate::{FormatError, lfs, parts};

/// What llama.cpp divides rotary frequencies by, `[head_dim / 2]`, where a model has Llama 3's scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Reads the model in the file at `path`, or in the files of which it is a part, as `gguf-split` cuts models.
///
/// # Errors
/// See [`FormatError`].
pub fn read(path: &Path) -> Result<StoredModel, FormatError> {
    let open = |path: &Path| {
        let map = MappedFile::open(path).map_err(FormatError::io(path))?;
        let part = Part::new(Bytes::from_owner(map.clone()), path)?;
        Ok::<_, FormatError>((map, part))
    };
    let (map, named) = open(path)?;
    let Some(count) = named.count()? else {
        return Ok(StoredModel { maps: vec![map], ..assemble(vec![named], path)? });
    };
    let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), kind: "GGUF", reason };
    let files = match parts::beside(path) {
        Some(Ok(files)) if files.len() == count => files,
        Some(Err(missing)) => {
            return Err(damaged(format!("it is one of {count} parts, and {} is missing", missing.display())));
        }
        _ => {
            let end = format!("-00001-of-{count:05}.gguf");
            return Err(damaged(format!("it is one of {count} parts; their names must end in {end} and so on")));
        }
    };
    let opened = files.iter().map(|file| open(file)).collect::<Result<Vec<_>, _>>()?;
    let (maps, parts) = opened.into_iter().unzip();
    Ok(StoredModel { maps, ..assemble(parts, path)? })
}

/// Reads a file in memory; `path` is for messages.
///
/// # Errors
/// See [`FormatError`].
pub fn from_bytes(bytes: Bytes, path: &Path) -> Result<StoredModel, FormatError> {
    assemble(vec![Part::new(bytes, path)?], path)
}

/// Looks whether all tensors of the file at `path` are within it, as far as their types are known.
pub(crate) fn check_whole(path: &Path) -> Result<(), FormatError> {
    let map = MappedFile::open(path).map_err(FormatError::io(path))?;
    let Part { bytes, header, .. } = Part::new(Bytes::from_owner(map), path)?;
    for info in header.tensors.iter().filter(|info| types::encoding_of(info.kind).is_some()) {
        let wrong = |reason| FormatError::Tensor { name: info.name.clone(), path: path.to_owned(), reason };
        tensor(&bytes, info).map_err(wrong)?;
    }
    Ok(())
}

/// A file, taken apart.
struct Part {
    bytes: Bytes,
    path: PathBuf,
    header: Header,
}

impl Part {
    fn new(bytes: Bytes, path: &Path) -> Result<Self, FormatError> {
        lfs::refuse_pointer(&bytes, path)?;
        let header = parse(&bytes).map_err(damaged_at(path))?;
        Ok(Self { bytes, path: path.to_owned(), header })
    }

    /// How many files the model is cut into, if it is several.
    fn count(&self) -> Result<Option<usize>, FormatError> {
        match self.header.values.get("split.count").map(Value::as_usize) {
            None | Some(Some(0 | 1)) => Ok(None),
            Some(Some(count)) => Ok(Some(count)),
            Some(None) => Err(damaged_at(&self.path)("the key split.count is no number".to_owned())),
        }
    }
}

fn damaged_at(path: &Path) -> impl Fn(String) -> FormatError {
    move |reason| FormatError::Damaged { path: path.to_owned(), kind: "GGUF", reason }
}

/// The model in `parts`, all that there are; `path` is what was named.
fn assemble(parts: Vec<Part>, path: &Path) -> Result<StoredModel, FormatError> {
    let damaged = damaged_at(path);
    let mut infos: HashMap<String, (TensorInfo, usize)> = HashMap::new();
    let (mut values, mut tensors, mut files) = (HashMap::new(), Vec::new(), Vec::new());
    for (number, part) in parts.into_iter().enumerate() {
        let Part { bytes, path: file, header } = part;
        for info in &header.tensors {
            if infos.insert(info.name.clone(), (info.clone(), number)).is_some() {
                return Err(damaged_at(&file)(format!("tensor {} is there twice", info.name)));
            }
        }
        // The first part says everything of the model; the others repeat what they please.
        for (key, value) in header.values {
            values.entry(key).or_insert(value);
        }
        tensors.extend(header.tensors);
        files.push((file, bytes));
    }
    if let Some(expected) = values.get("split.tensors.count").and_then(Value::as_usize)
        && expected != tensors.len()
        && files.len() > 1
    {
        let found = tensors.len();
        return Err(damaged(format!("its {} parts hold {found} tensors instead of {expected}", files.len())));
    }
    let header = Header { values, tensors };
    let factors = match infos.remove(ROPE_FACTORS) {
        Some((info, number)) => {
            let (file, bytes) = &files[number];
            let wrong = |reason| FormatError::Tensor { name: info.name.clone(), path: file.to_owned(), reason };
            Some(tensor(bytes, &info).map_err(wrong)?.to_f32())
        }
        None => None,
    };
    let sizes = metadata::sizes(&header, factors.as_deref()).map_err(&damaged)?;
    let config = sizes.into_config().map_err(|source| FormatError::Geometry { path: path.to_owned(), source })?;
    let tokenizer = tokenizer::read(&header).map_err(&damaged)?;
    let mut take = |name: &str, shape: &[usize]| {
        let wrong =
            |file: &Path, reason: String| FormatError::Tensor { name: name.to_owned(), path: file.to_owned(), reason };
        let taken = infos.remove(name).ok_or_else(|| wrong(path, format!("it is missing; expected {shape:?}")))?;
        let (info, number) = taken;
        let (file, bytes) = &files[number];
        if info.shape != shape {
            return Err(wrong(file, format!("expected {shape:?}, found {:?}", info.shape)));
        }
        Ok((tensor(bytes, &info).map_err(|reason| wrong(file, reason))?, info, number))
    };
    let mut sources = HashMap::new();
    for site in sites(&config) {
        let spec = site.spec(&config);
        let places = places(&config, site);
        let parts = places.iter().map(|place| take(&place.name, &place.shape(&spec))).collect::<Result<Vec<_>, _>>()?;
        let stack = |parts: Vec<Placed>| Stack::new(parts.into_iter().map(|(tensor, ..)| tensor).collect());
        let source = match (adjoining(&files, &spec.shape, &parts), site.layer) {
            (_, Some(layer)) if is_interleaved(config.family, site.role) => {
                Source::Interleaved(stack(parts), config.heads(&config.layers[layer]))
            }
            (Some(tensor), _) => Source::Tensor(tensor),
            (None, _) => Source::Stacked(stack(parts)),
        };
        sources.insert(spec.name, source);
    }
    if let Some(name) = infos.into_keys().min() {
        let reason = format!("the architecture {} has no such tensor", config.family.name());
        return Err(FormatError::Tensor { name, path: path.to_owned(), reason });
    }
    Ok(StoredModel {
        config,
        format: Format::Gguf,
        path: path.to_owned(),
        files: files.into_iter().map(|(file, _)| file).collect(),
        tokenizer,
        notes: Vec::new(),
        config_json: None,
        generation_config: None,
        maps: Vec::new(),
        sources,
    })
}

fn tensor(file: &Bytes, info: &TensorInfo) -> Result<Tensor, String> {
    let Some(encoding) = types::encoding_of(info.kind) else {
        return Err(format!("its type (number {} of ggml) cannot be read", info.kind));
    };
    let size = encoding.bytes_of(&info.shape).ok_or("its rows do not fill whole blocks")?;
    let end = info.offset.checked_add(size).filter(|&end| end <= file.len());
    let end = end.ok_or_else(|| format!("it reaches beyond the end of the file at byte {}", file.len()))?;
    wrap(encoding, info.shape.clone(), file.slice(info.offset..end))
}

fn wrap(encoding: Encoding, shape: Vec<usize>, bytes: Bytes) -> Result<Tensor, String> {
    let tensor = match encoding {
        Encoding::Blocks(format) => Tensor::blocks(format, shape, bytes),
        Encoding::Float(dtype) => Tensor::new(dtype, shape, bytes),
        Encoding::Affine(..) => return Err("GGUF has no affine groups".to_owned()),
    };
    tensor.map_err(|e| e.to_string())
}

/// A tensor, where it lies, and in which part.
type Placed = (Tensor, TensorInfo, usize);

/// Tensors as one, without a copy, if each begins in the file where the one before it ends, and all are stored alike.
fn adjoining(files: &[(PathBuf, Bytes)], shape: &[usize], parts: &[Placed]) -> Option<Tensor> {
    let [(first, above, number), rest @ ..] = parts else { return None };
    let mut end = above.offset + first.size();
    for (tensor, info, other) in rest {
        if other != number || tensor.encoding() != first.encoding() || info.offset != end {
            return None;
        }
        end += tensor.size();
    }
    wrap(first.encoding(), shape.to_vec(), files[*number].1.slice(above.offset..end)).ok()
}

#[cfg(test)]
mod tests {
    use openelm_testing::golden;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// The type of a value and its bytes. Numbers are of other types than those that our writer and llama.cpp's take.
    fn written(value: &Value) -> (u32, Vec<u8>) {
        match value {
            Value::Integer(value) => (11, (*value as i64).to_le_bytes().into()),
            Value::Float(value) => (12, value.to_le_bytes().into()),
            Value::Bool(value) => (7, vec![u8::from(*value)]),
            Value::Text(value) => (8, text(value)),
            Value::Array(values) => {
                let parts: Vec<_> = values.iter().map(written).collect();
                let kind = parts.first().map_or(11, |(kind, _)| *kind);
                let length = (parts.len() as u64).to_le_bytes();
                let bytes = parts.into_iter().flat_map(|(_, bytes)| bytes);
                (9, kind.to_le_bytes().into_iter().chain(length).chain(bytes).collect())
            }
        }
    }

    fn file(values: &[(String, Value)], tensors: &[TensorInfo], data: &[u8]) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend([tensors.len() as u64, values.len() as u64].map(u64::to_le_bytes).concat());
        for (key, value) in values {
            let (kind, bytes) = written(value);
            out.extend([text(key), kind.to_le_bytes().into(), bytes].concat());
        }
        let mut contents = Vec::new();
        for tensor in tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend((contents.len() as u64).to_le_bytes());
            let size = types::encoding_of(tensor.kind).unwrap().bytes_of(&tensor.shape).unwrap();
            contents.extend(&data[tensor.offset..tensor.offset + size]);
            contents.resize(contents.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(contents);
        out
    }

    /// Cuts a file in `count` as `gguf-split` does: all metadata in the first part, tensors in their order.
    fn cut(whole: &[u8], count: usize) -> Vec<Vec<u8>> {
        let header = parse(whole).unwrap();
        let of_split = |number: usize| {
            [("split.no", number), ("split.count", count), ("split.tensors.count", header.tensors.len())]
                .map(|(key, value)| (key.to_owned(), Value::Integer(value as i128)))
                .to_vec()
        };
        let parts = header.tensors.chunks(header.tensors.len().div_ceil(count)).enumerate().map(|(number, tensors)| {
            let mut values = of_split(number);
            if number == 0 {
                values.extend(header.values.clone());
            }
            file(&values, tensors, whole)
        });
        parts.collect()
    }

    #[test]
    fn a_file_cut_in_parts_is_read_whole_from_any_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let whole = read(&golden("gguf/a-Q4_0.gguf")).unwrap();
        let parts = cut(&std::fs::read(golden("gguf/a-Q4_0.gguf")).unwrap(), 3);
        let names: Vec<PathBuf> =
            (1..=3).map(|number| folder.path().join(format!("a-Q4_0-{number:05}-of-00003.gguf"))).collect();
        names.iter().zip(&parts).for_each(|(name, bytes)| std::fs::write(name, bytes).unwrap());
        for named in names.iter().map(PathBuf::as_path).chain([folder.path()]) {
            let read = crate::open(named).unwrap();
            assert_eq!((read.config.clone(), read.files.clone()), (whole.config.clone(), names.clone()));
            assert!(read.tokenizer.is_some());
            for spec in whole.specs() {
                let bytes = |model: &StoredModel| model.tensor(&spec.name).unwrap().bytes().clone();
                assert_eq!(bytes(&read), bytes(&whole), "{}", spec.name);
            }
        }
        // Another model in the folder: the one meant must be named.
        std::fs::write(folder.path().join("b.gguf"), b"").unwrap();
        assert!(crate::open(folder.path()).unwrap_err().to_string().contains("2 .gguf files"));
        let elsewhere = folder.path().join("c.gguf");
        std::fs::write(&elsewhere, &parts[1]).unwrap();
        let error = crate::open(&elsewhere).unwrap_err().to_string();
        assert!(error.contains("one of 3 parts") && error.contains("-00001-of-00003.gguf"), "{error}");
        std::fs::remove_file(&names[1]).unwrap();
        let error = crate::open(&names[2]).unwrap_err().to_string();
        assert!(error.contains("a-Q4_0-00002-of-00003.gguf is missing"), "{error}");
    }

    #[test]
    fn numbers_count_whichever_type_they_are_of() {
        let bytes = std::fs::read(golden("gguf/a-F32.gguf")).unwrap();
        let header = parse(&bytes).unwrap();
        let with = |change: &dyn Fn(&str, &Value) -> Value| {
            let values: Vec<_> = header.values.iter().map(|(key, value)| (key.clone(), change(key, value))).collect();
            from_bytes(file(&values, &header.tensors, &bytes).into(), Path::new("a.gguf"))
        };
        let theta = |value: Value| {
            move |key: &str, old: &Value| if key == "openelm.rope.freq_base" { value.clone() } else { old.clone() }
        };
        for value in [Value::Integer(500_000), Value::Float(500_000.0)] {
            assert_eq!(with(&theta(value)).unwrap().config.rope_theta, 500_000.0);
        }
        // All whole numbers as floats.
        let floats = |key: &str, old: &Value| match old {
            Value::Integer(value) if key.starts_with("openelm.") => Value::Float(*value as f64),
            other => other.clone(),
        };
        assert_eq!(with(&floats).unwrap().config, from_bytes(bytes.clone().into(), Path::new("")).unwrap().config);
        for (key, value, part) in [
            ("openelm.rope.freq_base", Value::Text("10000".to_owned()), "freq_base is no number"),
            ("openelm.block_count", Value::Float(2.5), "block_count"),
            ("openelm.rope.dimension_count", Value::Integer(16), "heads are 32 wide"),
            ("openelm.attention.value_length", Value::Integer(64), "heads are 32 wide"),
            ("general.name", Value::Bool(true), ""),
        ] {
            let changed = with(&|name, old| if name == key { value.clone() } else { old.clone() });
            match (part, changed) {
                ("", read) => drop(read.unwrap()),
                (part, Err(e)) => assert!(e.to_string().contains(part), "{e}"),
                (part, Ok(_)) => panic!("{part}: it was read"),
            }
        }
        for (kind, part) in [("linear", "scaled (linear)"), ("yarn", "yarn")] {
            let mut scaled: Vec<_> = header.values.clone().into_iter().collect();
            scaled.push(("openelm.rope.scaling.type".to_owned(), Value::Text(kind.to_owned())));
            let refused = from_bytes(file(&scaled, &header.tensors, &bytes).into(), Path::new("a.gguf")).unwrap_err();
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
