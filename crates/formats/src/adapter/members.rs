//! Modules that are one here and several in the files of other families: each part has factors of its own there.
//!
//! ```text
//! q: B_q A_q         | B_q  0   0  |   | A_q |
//! k: B_k A_k    =    |  0  B_k  0  | x | A_k |       where all have the same A, it stands there once, and B_q, B_k and B_v
//! v: B_v A_v         |  0   0  B_v |   | A_v |       stand below each other
//! ```

use std::ops::Range;

use openelm_model::{AdapterModule, AdapterOptions, Target, Tensor};

use crate::places::Place;

/// A module as a file names it: a target, or some of its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: String,
    pub outputs: Range<usize>,
}

impl Member {
    /// All of `target`, as `name`.
    pub fn whole(name: String, target: &Target) -> Vec<Self> {
        vec![Self { name, outputs: 0..target.outputs }]
    }

    /// The members of `target` whose weights are at `places`.
    pub fn at(places: Vec<Place>, target: &Target) -> Vec<Self> {
        let module = |place: &Place| place.name.trim_end_matches(".weight").to_owned();
        match &places[..] {
            [place] => Self::whole(module(place), target),
            several => several.iter().map(|place| Self { name: module(place), outputs: place.rows.clone() }).collect(),
        }
    }
}

/// The adapter of `target` of those of its `members`, some of which may have none.
///
/// # Errors
/// In words, if some members have magnitudes and others none.
pub(super) fn join(
    target: &Target,
    members: &[Member],
    mut modules: Vec<Option<AdapterModule>>,
    options: &AdapterOptions,
) -> Result<Option<AdapterModule>, String> {
    if members.len() == 1 {
        return Ok(modules.pop().flatten());
    }
    let present: Vec<(&Member, AdapterModule)> =
        members.iter().zip(modules).filter_map(|(member, module)| Some((member, module?))).collect();
    // Others are scaled as it is, which a scale of zero could not be.
    let scaled = |(_, module): &&(&Member, AdapterModule)| options.scale(module) != 0.0;
    let Some((_, first)) = present.iter().find(scaled).or(present.first()) else { return Ok(None) };
    let magnitudes: Vec<f32> =
        present.iter().filter_map(|(_, module)| module.magnitude.as_ref()).flat_map(Tensor::to_f32).collect();
    if !magnitudes.is_empty() && magnitudes.len() != target.outputs {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        return Err(format!(
            "it has DoRA on some of {} but not on all; they are one matrix here, whose rows need a magnitude each: adapt all \
             of them or none",
            names.join(", ")
        ));
    }
    let scale = options.scale(first);
    let is_shared = present.len() == members.len()
        && present.iter().all(|(_, module)| {
            (module.rank(), options.scale(module)) == (first.rank(), scale) && module.a.bytes() == first.a.bytes()
        });
    let rank = if is_shared { first.rank() } else { present.iter().map(|(_, module)| module.rank()).sum() };
    let mut b = vec![0.0; target.outputs * rank];
    let mut begin = 0;
    for (member, module) in &present {
        let own = module.rank();
        let factor = if options.scale(module) == scale { 1.0 } else { options.scale(module) / scale };
        for (row, values) in member.outputs.clone().zip(module.b.to_f32().chunks_exact(own)) {
            let place = &mut b[row * rank + begin..][..own];
            place.iter_mut().zip(values).for_each(|(b, value)| *b = value * factor);
        }
        begin += if is_shared { 0 } else { own };
    }
    let a = match is_shared {
        true => first.a.clone(),
        false => {
            let rows = present.iter().flat_map(|(_, module)| module.a.to_f32()).collect();
            tensor(vec![rank, target.inputs], rows)?
        }
    };
    let b = tensor(vec![target.outputs, rank], b)?;
    let magnitude = match magnitudes.is_empty() {
        true => None,
        false => Some(tensor(vec![target.outputs], magnitudes)?),
    };
    Ok(Some(AdapterModule { alpha: alpha_at(first, rank, options), a, b, magnitude }))
}

/// The adapters of the `members` of `target` that together do what `module` does; `None` where it does nothing. Where no row of A
/// is for more than one of them, each gets its own rows, otherwise all of them.
///
/// # Errors
/// In words, if the tensors make no adapter.
pub(super) fn split(
    target: &Target,
    members: &[Member],
    module: &AdapterModule,
    options: &AdapterOptions,
) -> Result<Vec<Option<AdapterModule>>, String> {
    if members.len() == 1 {
        return Ok(vec![Some(module.clone())]);
    }
    let (rank, a, b) = (module.rank(), module.a.to_f32(), module.b.to_f32());
    let used = |member: &Member, component: usize| member.outputs.clone().any(|row| b[row * rank + component] != 0.0);
    let users: Vec<usize> =
        (0..rank).map(|component| members.iter().filter(|member| used(member, component)).count()).collect();
    let is_apart = users.iter().all(|&count| count <= 1) && users.contains(&1);
    let of_member = |member: &Member| {
        let magnitude = module.magnitude.as_ref().map(|magnitude| magnitude.rows(member.outputs.clone()));
        if !is_apart {
            let b = module.b.rows(member.outputs.clone());
            return Ok(Some(AdapterModule { alpha: module.alpha, a: module.a.clone(), b, magnitude }));
        }
        let mut components: Vec<usize> = (0..rank).filter(|&component| used(member, component)).collect();
        if components.is_empty() {
            match magnitude {
                None => return Ok(None),
                // A magnitude does not stand alone.
                Some(_) => components.push(0),
            }
        }
        let own = components.len();
        let rows = components.iter().flat_map(|row| &a[row * target.inputs..][..target.inputs]).copied();
        let columns = member.outputs.clone().flat_map(|row| components.iter().map(move |column| (row, *column)));
        Ok(Some(AdapterModule {
            alpha: alpha_at(module, own, options),
            a: tensor(vec![own, target.inputs], rows.collect())?,
            b: tensor(vec![member.outputs.len(), own], columns.map(|(row, column)| b[row * rank + column]).collect())?,
            magnitude,
        }))
    };
    members.iter().map(of_member).collect()
}

/// The alpha that scales a change of rank `rank` as that of `module` is scaled.
fn alpha_at(module: &AdapterModule, rank: usize, options: &AdapterOptions) -> f64 {
    let ratio = rank as f64 / module.rank() as f64;
    // Roots must not leave a last digit in what was a whole number.
    const DIGITS: f64 = 1e9;
    (module.alpha * if options.rs_lora { ratio.sqrt() } else { ratio } * DIGITS).round() / DIGITS
}

fn tensor(shape: Vec<usize>, values: Vec<f32>) -> Result<Tensor, String> {
    Tensor::from_f32(shape, values).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use openelm_model::{Role, Site};

    use super::*;

    const INPUTS: usize = 3;

    fn target() -> Target {
        let (site, name) = (Site::of_layer(0, Role::QkvProj), "layers.0.attn.qkv_proj".to_owned());
        Target { site, name, inputs: INPUTS, outputs: 5, embedding: false }
    }

    fn members() -> Vec<Member> {
        [("q", 0..2), ("k", 2..3), ("v", 3..5)]
            .map(|(name, outputs)| Member { name: name.to_owned(), outputs })
            .to_vec()
    }

    fn module(member: &Member, rank: usize, alpha: f64, seed: f32) -> AdapterModule {
        let values = |count: usize, start: f32| (0..count).map(|x| start + x as f32).collect::<Vec<f32>>();
        let outputs = member.outputs.len();
        AdapterModule {
            alpha,
            a: tensor(vec![rank, INPUTS], values(rank * INPUTS, seed)).unwrap(),
            b: tensor(vec![outputs, rank], values(outputs * rank, -3.5)).unwrap(),
            magnitude: None,
        }
    }

    /// `scale B A`, `[outputs, inputs]`.
    fn product(module: &AdapterModule, options: &AdapterOptions) -> Vec<f32> {
        let (a, b, rank) = (module.a.to_f32(), module.b.to_f32(), module.rank());
        let element = |row: &[f32], column: usize| {
            options.scale(module) * (0..rank).map(|r| row[r] * a[r * INPUTS + column]).sum::<f32>()
        };
        b.chunks_exact(rank).flat_map(|row| (0..INPUTS).map(move |column| element(row, column))).collect()
    }

    #[test]
    fn parts_are_joined_exactly_and_come_back_as_they_were() {
        for rs_lora in [false, true] {
            let options = AdapterOptions { rs_lora, ..AdapterOptions::default() };
            let members = members();
            let apart = vec![Some(module(&members[0], 2, 8.0, 1.0)), None, Some(module(&members[2], 1, 4.0, 9.0))];
            let joined = join(&target(), &members, apart.clone(), &options).unwrap().unwrap();
            assert_eq!(joined.rank(), 3);
            let expected = members.iter().zip(&apart).flat_map(|(member, part)| match part {
                Some(part) => product(part, &options),
                None => vec![0.0; member.outputs.len() * INPUTS],
            });
            let expected: Vec<f32> = expected.collect();
            let found = product(&joined, &options);
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs()), "{found:?}");
            let back = split(&target(), &members, &joined, &options).unwrap();
            for (back, part) in back.iter().zip(&apart) {
                assert_eq!(back.is_some(), part.is_some());
                let (Some(back), Some(part)) = (back, part) else { continue };
                assert_eq!(back.a.to_f32(), part.a.to_f32());
                assert_eq!(back.rank(), part.rank());
            }
        }
    }

    #[test]
    fn a_part_without_effect_leaves_the_others_theirs() {
        let options = AdapterOptions::default();
        let members = members();
        let alphas = [0.0, 4.0, 8.0];
        let apart: Vec<_> = members
            .iter()
            .zip(alphas)
            .map(|(member, alpha)| Some(module(member, 1, alpha, 1.0 + alpha as f32)))
            .collect();
        let joined = join(&target(), &members, apart.clone(), &options).unwrap().unwrap();
        let expected: Vec<f32> = apart.iter().flatten().flat_map(|part| product(part, &options)).collect();
        assert_eq!(product(&joined, &options), expected);
    }

    #[test]
    fn one_a_for_all_stays_one() {
        let options = AdapterOptions::default();
        let members = members();
        let of_all: Vec<_> = members.iter().map(|member| Some(module(member, 2, 8.0, 1.0))).collect();
        let joined = join(&target(), &members, of_all.clone(), &options).unwrap().unwrap();
        assert_eq!((joined.rank(), joined.alpha), (2, 8.0));
        for (back, part) in split(&target(), &members, &joined, &options).unwrap().iter().zip(&of_all) {
            let (Some(back), Some(part)) = (back, part) else { panic!("a part is missing") };
            assert_eq!((back.alpha, back.a.to_f32(), back.b.to_f32()), (8.0, part.a.to_f32(), part.b.to_f32()));
        }
    }

    #[test]
    fn magnitudes_are_there_for_all_parts_or_for_none() {
        let members = members();
        let mut of_all: Vec<_> = members.iter().map(|member| Some(module(member, 2, 8.0, 1.0))).collect();
        let with = |part: &mut Option<AdapterModule>, count: usize| {
            part.as_mut().unwrap().magnitude = Some(tensor(vec![count], vec![1.0; count]).unwrap());
        };
        with(&mut of_all[0], 2);
        let error = join(&target(), &members, of_all.clone(), &AdapterOptions::default()).unwrap_err();
        assert!(error.contains("DoRA on some of q, k, v"), "{error}");
        with(&mut of_all[1], 1);
        with(&mut of_all[2], 2);
        let joined = join(&target(), &members, of_all, &AdapterOptions::default()).unwrap().unwrap();
        assert_eq!(joined.magnitude.unwrap().to_f32(), [1.0; 5]);
    }
}
