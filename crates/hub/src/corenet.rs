//! The files that Apple published with CoreNet, at plain addresses: no repository lists them and no hashes are known.

use std::fmt;
use std::path::PathBuf;

use crate::settings::Settings;

/// One of Apple's models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreNetModel {
    /// As in the addresses: `270M`, `450M`, `1.1B` or `3B`.
    size: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Average,
    Iteration(u32),
    TrainingIteration(u32),
    TrainingLast,
    Mlx,
    Mlx4Bit,
    Lora,
    Dora,
}

/// Sizes as they stand in addresses, with CoreNet's names of the architectures.
const SIZES: [(&str, &str); 4] =
    [("270M", "OpenELM-270M"), ("450M", "OpenELM-450M"), ("1.1B", "OpenELM-1_1B"), ("3B", "OpenELM-3B")];

impl CoreNetModel {
    /// Reads what stands behind `corenet/` in a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.split_once('/').unwrap_or((text, ""));
        let (size, kind) = match (first, second) {
            ("mlx", rest) => match rest.strip_suffix("-4bit") {
                Some(size) => (size, Kind::Mlx4Bit),
                None => (rest, Kind::Mlx),
            },
            ("lora", size) => (size, Kind::Lora),
            ("dora", size) => (size, Kind::Dora),
            (size, "training_last") => (size, Kind::TrainingLast),
            (size, "") if !text.ends_with('/') => (size, Kind::Average),
            (size, state) => (
                size,
                match state.strip_prefix("training_") {
                    Some(state) => Kind::TrainingIteration(iteration(state)?),
                    None => Kind::Iteration(iteration(state)?),
                },
            ),
        };
        let size = size.to_uppercase().replace('_', ".");
        let (size, _) = SIZES.into_iter().find(|(known, _)| *known == size)?;
        Some(Self { size, kind })
    }

    /// Where the files lie under the address of Apple's folder; the last step is the file's name.
    pub(crate) fn files(&self) -> Vec<String> {
        let size = self.size;
        match self.kind {
            Kind::Average => vec![format!("pretrained/{size}/checkpoint_average.pt")],
            Kind::Iteration(n) => vec![format!("pretrained/{size}/checkpoint_epoch_0_iter_{n}.pt")],
            Kind::TrainingIteration(n) => vec![format!("pretrained/{size}/training_checkpoint_epoch_0_iter_{n}.pt")],
            Kind::TrainingLast => vec![format!("pretrained/{size}/training_checkpoint_last.pt")],
            // The configuration first: it is small, and without it the weights are of no use.
            Kind::Mlx => vec![format!("mlx/{size}/config.json"), format!("mlx/{size}/weights.safetensors")],
            Kind::Mlx4Bit => {
                vec![format!("mlx/{size}-4bit/config.json"), format!("mlx/{size}-4bit/weights.safetensors")]
            }
            Kind::Lora => vec![format!("peft/openelm_lora_{size}.pt")],
            Kind::Dora => vec![format!("peft/openelm_dora_{size}.pt")],
        }
    }

    /// Whether it is a model, not an adapter for one.
    pub fn is_model(&self) -> bool {
        !matches!(self.kind, Kind::Lora | Kind::Dora)
    }

    /// CoreNet's configuration of a `.pt` file: the part that names the architecture.
    pub(crate) fn yaml(&self) -> Option<String> {
        if !self.is_model() || matches!(self.kind, Kind::Mlx | Kind::Mlx4Bit) {
            return None;
        }
        let (_, architecture) = SIZES.into_iter().find(|(size, _)| *size == self.size)?;
        Some(format!(
            "model:\n  language_modeling:\n    name: general_gpt\n    general_gpt:\n      model_name: {architecture}\n      \
             vocab_size: 32128\n      max_context_length: 2048\n      padding_index: 32000\n"
        ))
    }

    /// The folder it is pulled to.
    pub(crate) fn folder(&self, settings: &Settings) -> PathBuf {
        settings.home.join("openelm").join(self.to_string())
    }

    /// Whether all its files are in its folder.
    pub(crate) fn is_here(&self, settings: &Settings) -> bool {
        let folder = self.folder(settings);
        self.files().iter().all(|file| folder.join(file_name(file)).exists())
            && (self.yaml().is_none() || folder.join(CONFIG).exists())
    }
}

/// What the YAML beside a `.pt` file is called.
pub(crate) const CONFIG: &str = "config.yaml";

impl fmt::Display for CoreNetModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.size;
        match self.kind {
            Kind::Average => write!(f, "corenet/{size}"),
            Kind::Iteration(n) => write!(f, "corenet/{size}/iter_{n}"),
            Kind::TrainingIteration(n) => write!(f, "corenet/{size}/training_iter_{n}"),
            Kind::TrainingLast => write!(f, "corenet/{size}/training_last"),
            Kind::Mlx => write!(f, "corenet/mlx/{size}"),
            Kind::Mlx4Bit => write!(f, "corenet/mlx/{size}-4bit"),
            Kind::Lora => write!(f, "corenet/lora/{size}"),
            Kind::Dora => write!(f, "corenet/dora/{size}"),
        }
    }
}

fn iteration(text: &str) -> Option<u32> {
    text.strip_prefix("iter_")?.parse().ok()
}

/// The last step of an address.
pub(crate) fn file_name(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or(address)
}
