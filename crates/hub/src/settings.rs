//! Where models are fetched from and kept: the environment variables of Hugging Face's own tools.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::HubError;

const HUB: &str = "https://huggingface.co";
const CORENET: &str = "https://docs-assets.developer.apple.com/ml-research/models/corenet/v0.1.0/openelm";

/// Where models are fetched from and kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the hub, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Address of Apple's folder of CoreNet models, likewise (`OPENELM_CORENET_ENDPOINT`).
    pub corenet_endpoint: String,
    /// Folder of everything (`HF_HOME`).
    pub home: PathBuf,
    /// Folder of the hub's models (`HF_HUB_CACHE`).
    pub cache: PathBuf,
    /// Says who asks (`HF_TOKEN`, or the file that `hf auth login` writes).
    pub token: Option<String>,
    /// Never use the network (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// A file of certificates to trust instead of the usual ones (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
    /// How long to bear with a server.
    pub patience: Patience,
}

/// How long to bear with a server.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts after one that brought nothing.
    pub retries: u32,
    /// Pause before the first of them; it doubles with each.
    pub pause: Duration,
    /// Longest silence.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retries: 4, pause: Duration::from_secs(1), silence: Duration::from_secs(30) }
    }
}

impl Settings {
    /// The settings that the environment asks for.
    ///
    /// # Errors
    /// [`HubError::NoHome`] if it names no folder to keep models in; [`HubError::Io`] if the token's file cannot be read.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, user: Option<PathBuf>) -> Result<Self, HubError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let set = |name: &str| {
            variable(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let address = |name: &str, usual: &str| {
            variable(name).unwrap_or_else(|| usual.to_owned()).trim_end_matches('/').to_owned()
        };
        let user_cache = || path("XDG_CACHE_HOME").or_else(|| Some(user?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface"))).ok_or(HubError::NoHome)?;
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub"));
        let token = match variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(token.trim().to_owned()),
            None if set("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            None => read_token(&path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")))?,
        };
        Ok(Self {
            endpoint: address("HF_ENDPOINT", HUB),
            corenet_endpoint: address("OPENELM_CORENET_ENDPOINT", CORENET),
            home,
            cache,
            token,
            offline: set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE"),
            certificates: path("SSL_CERT_FILE"),
            patience: Patience::default(),
        })
    }
}

fn read_token(path: &Path) -> Result<Option<String>, HubError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        // In a cache that several people share the token is somebody's own: public models need none.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(None),
        Err(e) => Err(HubError::io(path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::from_variables(find, Some(PathBuf::from("/home/me"))).unwrap()
    }

    #[test]
    fn without_variables_the_places_are_those_of_hugging_faces_tools() {
        let usual = settings(&[]);
        assert_eq!(usual.endpoint, "https://huggingface.co");
        assert_eq!(usual.home, Path::new("/home/me/.cache/huggingface"));
        assert_eq!(usual.cache, Path::new("/home/me/.cache/huggingface/hub"));
        assert!(usual.token.is_none() && !usual.offline);
    }

    #[test]
    fn variables_are_honoured() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let given = settings(&[("HF_HOME", home), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "true")]);
        assert_eq!(given.endpoint, "http://mirror");
        assert_eq!(given.cache, folder.path().join("hub"));
        assert_eq!(given.token.as_deref(), Some("hf_file"));
        assert!(given.offline);
        let given = settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable"), ("HF_HUB_CACHE", "/elsewhere")]);
        assert_eq!((given.token.as_deref(), given.cache.to_str()), (Some("hf_variable"), Some("/elsewhere")));
        assert!(settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token.is_none());
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/x")]).home, Path::new("/x/huggingface"));
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn without_a_home_there_is_no_place() {
        assert!(matches!(Settings::from_variables(|_| None, None), Err(HubError::NoHome)));
    }
}
