//! What a run that goes on does otherwise when its recipe has changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Recipe;

/// Longest value that is shown, in characters.
const SHOWN: usize = 60;

impl Recipe {
    /// What of this recipe is not as it was `before`, key by key, and what that does to a run that has made `step` updates.
    pub fn changes_since(&self, before: &Self, step: u64) -> Vec<String> {
        differences(before, self).into_iter().chain(self.consequences(before, step)).collect()
    }

    fn consequences(&self, before: &Self, step: u64) -> Vec<String> {
        let mut sentences = Vec::new();
        let steps = [before.train.steps, self.train.steps];
        let tokens = [before, self].map(|recipe| {
            let train = &recipe.train;
            (train.sequence_length * train.batch_size * train.accumulation) as u64
        });
        let next = step + 1;
        if tokens[0] != tokens[1] {
            let [was, is] = tokens;
            sentences.push(format!("from update {next} on an update learns from {is} tokens instead of {was}"));
        }
        if (steps[0], tokens[0]) != (steps[1], tokens[1]) {
            let was = tokens[0] * steps[0];
            let is = tokens[0] * step + tokens[1] * steps[1].saturating_sub(step);
            sentences.push(format!("the run ends at {is} tokens instead of {was}"));
        }
        let schedules = [before.schedule(), self.schedule()];
        if steps[1] <= step {
            sentences.push(format!("{step} updates are made, so that there is nothing left to do"));
        } else if schedules[0] != schedules[1] {
            let [was, is] = schedules.map(|schedule| schedule.rounded(step));
            let [[was_min, was_end], [is_min, is_end]] =
                schedules.map(|schedule| [format!("{:.3e}", schedule.min_lr), schedule.steps.to_string()]);
            sentences.push(format!(
                "the learning rate of update {next} is {is:.3e} instead of {was:.3e}; it falls to {is_min} at update {is_end} \
                 instead of {was_min} at update {was_end}"
            ));
        } else if tokens[0] != tokens[1] {
            sentences
                .push("the learning rate follows the updates as before, whatever their number of tokens".to_owned());
        }
        sentences
    }
}

/// What of `now` is not as it was `before`, key by key; the output folder aside.
pub(crate) fn differences<T: Serialize>(before: &T, now: &T) -> Vec<String> {
    let (was, is) = (values(before), values(now));
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let changed = keys.into_iter().filter(|&key| was.get(key) != is.get(key) && key != "output");
    let told = |value: Option<&String>| value.filter(|value| value.chars().count() <= SHOWN).cloned();
    let sentence = |key: &String| match (told(was.get(key)), told(is.get(key))) {
        (Some(was), Some(is)) => format!("{key} was {was} and is {is} now"),
        (None, Some(is)) => format!("{key} is {is} now"),
        (Some(was), None) => format!("{key} was {was} and is something else now"),
        (None, None) => format!("{key} is something else now"),
    };
    changed.map(sentence).collect()
}

/// Every value by its dotted key, as TOML has it.
fn values(recipe: &impl Serialize) -> BTreeMap<String, String> {
    fn add(key: &str, value: &toml::Value, values: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                let dot = if key.is_empty() { "" } else { "." };
                table.iter().for_each(|(name, value)| add(&format!("{key}{dot}{name}"), value, values));
            }
            value => {
                values.insert(key.to_owned(), value.to_string());
            }
        }
    }
    let mut values = BTreeMap::new();
    // Plain structs cannot fail to become a table; without one there would be nothing to tell.
    if let Ok(table) = toml::Value::try_from(recipe) {
        add("", &table, &mut values);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::{TEXT, load};

    #[test]
    fn changes_are_told_with_what_they_do() {
        let before = load(TEXT, &[]).unwrap();
        let since = |sets: &[&str], step| load(TEXT, sets).unwrap().changes_since(&before, step);
        assert_eq!(since(&["output=elsewhere"], 5), Vec::<String>::new());
        assert_eq!(since(&["log.every=5"], 5), ["log.every was 10 and is 5 now"]);
        assert_eq!(
            since(&["train.batch_size=8"], 40),
            [
                "train.batch_size was 4 and is 8 now",
                "from update 41 on an update learns from 256 tokens instead of 128",
                "the run ends at 20480 tokens instead of 12800",
                "the learning rate follows the updates as before, whatever their number of tokens",
            ]
        );
        let longer = since(&["train.steps=200", "schedule.min_lr=1e-5"], 50);
        assert_eq!(longer[0], "schedule.min_lr is 0.00001 now");
        assert_eq!(
            longer[1..3],
            ["train.steps was 100 and is 200 now", "the run ends at 25600 tokens instead of 12800"]
        );
        // Half of the cosine is behind the old schedule, a fifth behind the new one.
        assert!(longer[3].starts_with("the learning rate of update 51 is ") && longer.len() == 4, "{longer:?}");
        assert!(longer[3].ends_with("falls to 1.000e-5 at update 200 instead of 1.000e-4 at update 100"), "{longer:?}");
        assert!(since(&["train.steps=20"], 50).last().unwrap().contains("nothing left to do"));
        let sources = since(&["data.sources=[{path = \"another/very/long/path/of/files/that/nobody/reads/*.md\"}]"], 1);
        assert!(sources[0].starts_with("data.sources was [{"), "{sources:?}");
    }
}
