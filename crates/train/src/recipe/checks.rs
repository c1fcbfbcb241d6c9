//! Which numbers of a recipe make sense.

use std::fmt::Display;

use super::{
    CheckpointRecipe, LogRecipe, OptimizerRecipe, Precision, Recipe, RecipeError, SpikeRecipe, ValidationRecipe,
};

/// Largest decay of moments in bf16, whose numbers have eight digits in binary. Closer to 1, a moment that decays changes by
/// less than half of its last digit; rounding then takes the change back, and it stands still for ever.
const LARGEST_BF16_DECAY: f32 = 1.0 - 1.0 / 256.0;

impl Recipe {
    /// Refuses numbers that make no sense, alone or beside each other. What the geometry and the weights of sources must be
    /// like is known where they are used.
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        let Self { train, log, checkpoint, data, .. } = self;
        at_least_one("train.sequence_length", train.sequence_length as u64)?;
        at_least_one("train.batch_size", train.batch_size as u64)?;
        at_least_one("train.accumulation", train.accumulation as u64)?;
        at_least_one("train.shares", train.shares.unwrap_or(1) as u64)?;
        at_least_one("train.steps", train.steps)?;
        let (length, fits) = (train.sequence_length, train.sequence_length <= self.model.context_length);
        require(fits, "train.sequence_length", length, "it must not exceed model.context_length")?;
        require(!data.sources.is_empty(), "data.sources", "empty", "a run needs something to learn from")?;
        at_least_one("data.workers", data.workers as u64)?;
        log.check()?;
        checkpoint.check()?;
        self.spike.check()?;
        self.check_validation()?;
        self.check_schedule()?;
        self.optimizer.check()
    }

    fn check_validation(&self) -> Result<(), RecipeError> {
        for (i, ValidationRecipe { name, corpus }) in self.validation.iter().enumerate() {
            let unique = !name.is_empty() && self.validation[..i].iter().all(|other| other.name != *name);
            require(unique, "validation.name", format!("{name:?}"), "each corpus needs a name of its own")?;
            require(!corpus.sources.is_empty(), "validation.sources", "empty", "name a source, or leave it out")?;
            at_least_one("validation.workers", corpus.workers as u64)?;
            let same = corpus.parity.is_none_or(|parity| self.data.parity == Some(parity));
            require(same, "validation.parity", "not data.parity", "say it there: it then holds for both")?;
        }
        Ok(())
    }

    fn check_schedule(&self) -> Result<(), RecipeError> {
        let schedule = &self.schedule;
        positive("schedule.max_lr", schedule.max_lr)?;
        let min = schedule.min_lr.unwrap_or(0.0);
        require((0.0..=schedule.max_lr).contains(&min), "schedule.min_lr", min, "it must lie between 0 and max_lr")?;
        not_negative("schedule.warmup_init_lr", schedule.warmup_init_lr)?;
        let warmup = schedule.warmup_steps;
        require(warmup <= self.train.steps, "schedule.warmup_steps", warmup, "it must not exceed train.steps")
    }
}

impl LogRecipe {
    /// Refuses numbers that make no sense.
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        at_least_one("log.every", self.every)?;
        at_least_one("log.validate_every", self.validate_every)?;
        at_least_one("log.validation_batches", self.validation_batches as u64)?;
        at_least_one("log.sample_tokens", self.sample_tokens as u64)?;
        let prompts = self.sample_every == 0 || !self.prompts.is_empty();
        require(prompts, "log.prompts", "empty", "samples need something to begin with, if only \"\"")
    }
}

impl CheckpointRecipe {
    /// Refuses numbers that make no sense.
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        at_least_one("checkpoint.every", self.every)
    }
}

impl SpikeRecipe {
    /// Refuses numbers that make no sense.
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        at_least_one("spike.updates", self.updates)?;
        not_negative("spike.deviations", self.deviations)
    }
}

impl OptimizerRecipe {
    /// Refuses numbers that make no sense.
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        for (key, beta) in [("optimizer.beta1", self.beta1), ("optimizer.beta2", self.beta2)] {
            require((0.0..1.0).contains(&beta), key, beta, "it must be at least 0 and below 1")?;
            let moves = self.moments == Precision::F32 || beta <= LARGEST_BF16_DECAY;
            let expected = "with moments in bf16 it must not exceed 0.996, or rounding holds the moments fast";
            require(moves, key, beta, expected)?;
        }
        positive("optimizer.eps", self.eps)?;
        not_negative("optimizer.weight_decay", self.weight_decay)?;
        not_negative("optimizer.clip", self.clip)?;
        not_negative("optimizer.z_loss", self.z_loss)
    }
}

pub(crate) fn require(
    ok: bool,
    key: &'static str,
    value: impl Display,
    expected: &'static str,
) -> Result<(), RecipeError> {
    if ok { Ok(()) } else { Err(RecipeError::Value { key, value: value.to_string(), expected }) }
}

pub(crate) fn at_least_one(key: &'static str, count: u64) -> Result<(), RecipeError> {
    require(count > 0, key, count, "it must be at least 1")
}

pub(crate) fn positive(key: &'static str, number: impl Into<f64> + Display + Copy) -> Result<(), RecipeError> {
    let value = number.into();
    require(value > 0.0 && value.is_finite(), key, number, "it must be a positive number")
}

pub(crate) fn not_negative(key: &'static str, number: impl Into<f64> + Display + Copy) -> Result<(), RecipeError> {
    let value = number.into();
    require(value >= 0.0 && value.is_finite(), key, number, "it must be 0 or more")
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use openelm_kernels::precision::Stored;

    use super::super::file::tests::{TEXT, load};
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        for (set, expected) in [
            ("train.sequence_length=0", "at least 1"),
            ("train.sequence_length=4096", "must not exceed model.context_length"),
            ("train.batch_size=0", "at least 1"),
            ("train.accumulation=0", "at least 1"),
            ("train.shares=0", "at least 1"),
            ("train.steps=0", "at least 1"),
            ("data.sources=[]", "something to learn from"),
            ("data.workers=0", "at least 1"),
            ("log.every=0", "at least 1"),
            ("log.validate_every=0", "at least 1"),
            ("log.validation_batches=0", "at least 1"),
            ("log.sample_tokens=0", "at least 1"),
            ("checkpoint.every=0", "at least 1"),
            ("spike.updates=0", "at least 1"),
            ("spike.deviations=-1.0", "0 or more"),
            ("spike.deviations=nan", "0 or more"),
            ("schedule.max_lr=0.0", "positive number"),
            ("schedule.max_lr=inf", "positive number"),
            ("schedule.min_lr=1.0", "between 0 and max_lr"),
            ("schedule.min_lr=nan", "between 0 and max_lr"),
            ("schedule.warmup_init_lr=-1e-6", "0 or more"),
            ("schedule.warmup_init_lr=nan", "0 or more"),
            ("schedule.warmup_steps=101", "must not exceed train.steps"),
            ("optimizer.beta1=1.0", "below 1"),
            ("optimizer.beta2=-0.1", "at least 0"),
            ("optimizer.beta2=nan", "at least 0"),
            ("optimizer.eps=0.0", "positive number"),
            ("optimizer.eps=inf", "positive number"),
            ("optimizer.weight_decay=-0.1", "0 or more"),
            ("optimizer.weight_decay=inf", "0 or more"),
            ("optimizer.clip=nan", "0 or more"),
            ("optimizer.z_loss=-1.0", "0 or more"),
        ] {
            let (key, message) = (set.split('=').next().unwrap(), load(TEXT, &[set]).unwrap_err());
            assert!(message.starts_with(&format!("{key} is ")) && message.contains(expected), "{set}: {message}");
        }
        let silent = load(TEXT, &["log.sample_every=5", "log.prompts=[]"]).unwrap_err();
        assert!(silent.starts_with("log.prompts is empty"), "{silent}");
    }

    #[test]
    fn validation_follows_the_pipeline_of_the_data() {
        let text = format!("{TEXT}[validation]\nsources = [{{ path = \"a.md\" }}]\n");
        let message = load(&text, &["validation.parity=corenet"]).unwrap_err();
        assert!(message.starts_with("validation.parity is not data.parity"), "{message}");
        load(&text, &["data.parity=corenet", "validation.parity=corenet"]).unwrap();
        load(&text, &["data.parity=corenet"]).unwrap();
    }

    #[test]
    fn moments_in_bf16_move_with_the_decays_that_are_allowed() {
        // One binade: the same holds in the others.
        let decayed = |beta: f32| {
            let moments = (128..256u16).map(|digits| bf16::from_f32(f32::from(digits)));
            moments.filter(|moment| <bf16 as Stored>::round(beta * moment.widen()) < *moment).count()
        };
        assert_eq!(decayed(LARGEST_BF16_DECAY), 128, "some stand still");
        assert_eq!(decayed(0.999), 0, "PyTorch's default for the second moment holds all of them fast");
        load(TEXT, &["optimizer.beta2=0.999"]).unwrap();
        load(TEXT, &["optimizer.beta2=0.996", "optimizer.moments=bf16"]).unwrap();
        let message = load(TEXT, &["optimizer.beta2=0.999", "optimizer.moments=bf16"]).unwrap_err();
        assert!(message.starts_with("optimizer.beta2 is 0.999; with moments in bf16"), "{message}");
    }
}
