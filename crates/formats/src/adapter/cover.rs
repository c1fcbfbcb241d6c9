//! How configurations mean modules: by whole names, or by the last part of the name for all layers.

use std::collections::{BTreeMap, BTreeSet};

/// The last part of a module's name, by which configurations mean the modules of all layers: `qkv_proj`.
pub(super) fn kind(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The shortest list of names that means just the modules `chosen` of `all`, sorted: a kind where all modules of it are chosen,
/// whole names otherwise.
pub(super) fn cover<'a>(
    all: impl IntoIterator<Item = &'a str>,
    chosen: &BTreeSet<&str>,
    kind: fn(&str) -> &str,
) -> BTreeSet<String> {
    let mut whole: BTreeMap<&str, bool> = BTreeMap::new();
    for name in all {
        *whole.entry(kind(name)).or_insert(true) &= chosen.contains(name);
    }
    let shortest = |name: &str| if whole.get(kind(name)) == Some(&true) { kind(name) } else { name }.to_owned();
    chosen.iter().map(|name| shortest(name)).collect()
}

#[cfg(test)]
mod tests {
    use openelm_model::{ModelConfig, targets};

    use super::*;

    #[test]
    fn a_kind_is_named_only_where_all_of_it_is_meant() {
        let targets = targets(&ModelConfig::openelm_270m());
        let names = || targets.iter().map(|target| target.name.as_str());
        let mut chosen: BTreeSet<&str> = names().filter(|name| name.ends_with("qkv_proj")).collect();
        chosen.insert("token_embeddings");
        chosen.insert("layers.3.ffn.proj_1");
        assert_eq!(
            cover(names(), &chosen, kind),
            ["layers.3.ffn.proj_1", "qkv_proj", "token_embeddings"].map(str::to_owned).into()
        );
        assert_eq!(cover(names(), &BTreeSet::new(), kind), BTreeSet::new());
    }
}
