//! Where documents come from: a folder, or the hub.

use std::path::PathBuf;

use openelm_eval::Sources;

#[cfg(feature = "hub")]
pub fn of(folder: Option<PathBuf>) -> Sources<'static> {
    use openelm_eval::OnHub;
    use openelm_hub::{Event, Settings, pull_split};

    use crate::tell;

    let fetch = |split: &OnHub| {
        let settings = Settings::from_environment()?;
        let OnHub { data_set, config, split } = split;
        let files = pull_split(data_set, config, split, &settings, &mut |event| match event {
            Event::Finished { file, size, .. } => tell(format!("{data_set}: {file}, {size} bytes")),
            Event::Retrying { reason } => tell(format!("trying again: {reason}")),
            _ => (),
        })?;
        Ok(files)
    };
    Sources { folder, hub: Some(Box::new(fetch)) }
}

#[cfg(not(feature = "hub"))]
pub fn of(folder: Option<PathBuf>) -> Sources<'static> {
    Sources { folder, hub: None }
}
