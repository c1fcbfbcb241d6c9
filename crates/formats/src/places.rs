//! Tensors that are one here and several in the files of other families, their rows one below the other.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use openelm_model::{ModelConfig, Role, Site, Tensor, TensorSpec};

use crate::FormatError;

/// Some rows of a tensor, under a name of their own in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub name: String,
    pub rows: Range<usize>,
}

impl Place {
    /// The shape under this name of a tensor of `spec`.
    pub fn shape(&self, spec: &TensorSpec) -> Vec<usize> {
        let mut shape = spec.shape.clone();
        shape[0] = self.rows.len();
        shape
    }
}

/// The places of the tensor at `site`: all of it under one name; or queries, keys and values, or gate and up, under one each.
pub(crate) fn places(config: &ModelConfig, site: Site, names: Vec<String>) -> Vec<Place> {
    let rows = site.spec(config).shape[0];
    let ends = match (site.role, site.layer, names.len()) {
        (Role::QkvProj | Role::QkvBias, Some(layer), 3) => {
            let heads = config.heads(&config.layers[layer]);
            vec![heads.query_dim(), heads.query_dim() + heads.kv_dim(), rows]
        }
        (Role::Proj1, _, 2) => vec![rows / 2, rows],
        _ => vec![rows],
    };
    let starts = [0].into_iter().chain(ends.clone());
    names.into_iter().zip(starts.zip(ends)).map(|(name, (start, end))| Place { name, rows: start..end }).collect()
}

/// Hands out parts of tensors in any order, and asks for each tensor once: it is kept until its last part was taken.
pub(crate) struct Cutter<'a> {
    tensor: &'a dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    /// Tensors by their names here, and how many of their rows are still to be taken.
    kept: Mutex<HashMap<String, (Tensor, usize)>>,
}

impl<'a> Cutter<'a> {
    pub fn new(tensor: &'a dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>) -> Self {
        Self { tensor, kept: Mutex::default() }
    }

    /// The rows of the tensor of `spec` that belong to `place`.
    pub fn take(&self, spec: &TensorSpec, place: &Place) -> Result<Tensor, FormatError> {
        if place.rows.len() == spec.shape[0] {
            return (self.tensor)(spec);
        }
        let kept = self.kept.lock().ok().and_then(|mut kept| kept.remove(&spec.name));
        let (tensor, left) = match kept {
            Some(kept) => kept,
            None => ((self.tensor)(spec)?, spec.shape[0]),
        };
        let part = tensor.rows(place.rows.clone());
        let left = left.saturating_sub(place.rows.len());
        if let (true, Ok(mut kept)) = (left > 0, self.kept.lock()) {
            kept.insert(spec.name.clone(), (tensor, left));
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use openelm_model::Geometry;

    use super::*;

    #[test]
    fn a_tensor_is_asked_for_once_however_many_parts_it_has() {
        let config =
            Geometry { layers: 1, dim: 64, head_dim: 16, gqa_groups: 2, ..Geometry::default() }.build(9).unwrap();
        let site = Site::of_layer(0, Role::QkvProj);
        let spec = site.spec(&config);
        let values: Vec<f32> = (0..spec.len()).map(|x| x as f32).collect();
        let asked = Cell::new(0);
        let tensor = |spec: &TensorSpec| {
            asked.set(asked.get() + 1);
            Ok(Tensor::from_f32(spec.shape.clone(), values.clone())?)
        };
        let cutter = Cutter::new(&tensor);
        let places = places(&config, site, ["k", "o", "v"].map(str::to_owned).to_vec());
        assert_eq!(places.iter().map(|place| place.rows.len()).sum::<usize>(), spec.shape[0]);
        let mut parts: Vec<_> = places.iter().rev().map(|place| cutter.take(&spec, place).unwrap().to_f32()).collect();
        parts.reverse();
        assert_eq!((parts.concat(), asked.get()), (values.clone(), 1));
    }
}
