//! Repositories of a hub: what is fetched, where it goes, and what a hub can do wrong.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_hub::{Event, HubError, Name, Pattern, PullOptions, TokenizerChoice, resolve};
use openelm_testing::server::{Request, Server, Step, cut, file, reply};
use openelm_testing::{golden, shared};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use support::{Place, content, files_in};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "me/model";

/// A repository as the hub shows it: large files by their SHA-256, on machines of another name.
struct Hub {
    repository: &'static str,
    commit: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Hub {
    fn new(files: &[(&'static str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| (*name, (*bytes).to_owned())).collect();
        Self { repository: NAME, commit: COMMIT, files }
    }

    fn model() -> Self {
        Self::new(&[
            ("config.json", br#"{"model_type":"llama"}"#),
            ("model.safetensors", &content(100_000)),
            ("modeling.py", b"import os"),
        ])
    }

    fn answer(&self, request: &Request) -> Vec<Step> {
        if request.path.starts_with(&format!("/api/models/{}/revision/", self.repository)) {
            return reply(200, &[], self.list().as_bytes());
        }
        if let Some(name) = request.path.strip_prefix("/cdn/") {
            return file(request, self.content(name), "of the cdn");
        }
        let of_repository = request.path.strip_prefix(&format!("/{}/resolve/", self.repository));
        let Some((_, name)) = of_repository.and_then(|path| path.split_once('/')) else {
            return reply(404, &[], b"");
        };
        if !self.files.iter().any(|(known, _)| *known == name) {
            return reply(404, &[], b"");
        }
        let bytes = self.content(name);
        if !is_large(name) {
            return file(request, bytes, &git_hash(bytes));
        }
        let (sha256, size) = (format!("\"{}\"", sha256(bytes)), bytes.len().to_string());
        let port = request.header("host").unwrap().rsplit(':').next().unwrap();
        let cdn = format!("http://localhost:{port}/cdn/{name}");
        let headers =
            [("Location", cdn.as_str()), ("X-Linked-Etag", sha256.as_str()), ("X-Linked-Size", size.as_str())];
        reply(302, &[&headers[..], &[("X-Repo-Commit", self.commit)]].concat(), b"")
    }

    fn content(&self, name: &str) -> &[u8] {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.as_slice()).unwrap()
    }

    fn list(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|(name, _)| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
        format!(r#"{{"sha":"{}","siblings":[{}],"private":false}}"#, self.commit, files.join(","))
    }

    fn start(self) -> Server {
        Server::start(move |request| self.answer(request))
    }
}

fn is_large(name: &str) -> bool {
    [".safetensors", ".gguf", ".model"].iter().any(|end| name.ends_with(end))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_hash(bytes: &[u8]) -> String {
    let hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cached(place: &Place) -> PathBuf {
    place.settings.cache.join("models--me--model")
}

fn without_tokenizer() -> PullOptions {
    PullOptions { tokenizer: TokenizerChoice::None, ..PullOptions::default() }
}

#[test]
fn a_repository_lies_in_the_cache_as_hugging_faces_tools_have_it() {
    let weights = content(100_000);
    let server = Hub::model().start();
    let place = Place::new(&server);
    let folder = place.pull(NAME).unwrap();
    assert_eq!(folder, cached(&place).join("snapshots").join(COMMIT));
    assert_eq!(files_in(&folder), ["config.json", "model.safetensors"], "code is not fetched");
    assert_eq!(std::fs::read_to_string(cached(&place).join("refs/main")).unwrap(), COMMIT);
    let target = std::fs::read_link(folder.join("model.safetensors")).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(sha256(&weights)));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights);
    assert_eq!(files_in(&cached(&place).join("blobs")).len(), 2, "nothing is left over");
    assert_eq!(files_in(&cached(&place).join("snapshots")), [COMMIT]);

    assert_eq!(resolve(NAME, &place.settings).unwrap(), folder);
    assert_eq!(resolve(&format!("{NAME}@{COMMIT}"), &place.settings).unwrap(), folder);
    server.requests();
    assert_eq!(place.pull(NAME).unwrap(), folder);
    assert!(server.requests().iter().all(|request| request.method == "HEAD" || request.path.starts_with("/api/")));
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let server = Hub::model().start();
    let mut place = Place::new(&server);
    place.settings.token = Some("hf_secret".to_owned());
    place.pull(NAME).unwrap();
    for request in server.requests() {
        let token = request.header("authorization");
        assert_eq!(token, (!request.path.starts_with("/cdn/")).then_some("Bearer hf_secret"), "{}", request.path);
    }
    // Apple's server is another one.
    let apple = Server::start(|request| file(request, &content(400), "a"));
    place.settings.corenet_endpoint = apple.url();
    place.pull("corenet/lora/270M").unwrap();
    assert!(apple.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn half_a_model_is_none_and_the_next_call_goes_on() {
    let hub = Hub::model();
    let broken = Arc::new(AtomicBool::new(true));
    let breaks = broken.clone();
    let server = Server::start(move |request| match hub.answer(request) {
        whole if breaks.load(Ordering::SeqCst) && request.path.starts_with("/cdn/") => cut(whole, 40_000),
        whole => whole,
    });
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::BrokeOff { received: 40_000, kept: true, .. }), "{error}");
    let error = resolve(NAME, &place.settings).unwrap_err().to_string();
    assert!(error.contains("`openelm pull me/model` fetches it"), "{error}");

    broken.store(false, Ordering::SeqCst);
    server.requests();
    let folder = place.pull(NAME).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), content(100_000));
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|request| Some(request.header("range")?.to_owned())).collect();
    // Asked of the hub, and of the machine it points to.
    assert_eq!(ranges, ["bytes=40000-", "bytes=40000-"]);
}

#[test]
fn bytes_that_are_not_the_file_are_removed() {
    let hub = Hub::model();
    let server = Server::start(move |request| {
        if request.path.starts_with("/cdn/") { file(request, &vec![0; 100_000], "a") } else { hub.answer(request) }
    });
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err().to_string();
    assert!(error.contains(&sha256(&content(100_000))) && error.contains(&sha256(&vec![0; 100_000])), "{error}");
    assert!(error.starts_with("model.safetensors is not the file it should be"), "{error}");
    assert!(resolve(NAME, &place.settings).is_err());
    assert_eq!(files_in(&cached(&place).join("blobs")).len(), 1, "only the configuration is here");
}

#[test]
fn a_length_other_than_the_known_one_is_refused() {
    let hub = Hub::model();
    let server = Server::start(move |request| {
        if request.path.starts_with("/cdn/") { file(request, &content(99_999), "a") } else { hub.answer(request) }
    });
    let error = Place::new(&server).pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Length { expected: 100_000, found: 99_999, .. }), "{error}");
}

#[test]
fn a_new_commit_replaces_the_old_one_when_it_is_whole() {
    const NEXT: &str = "ffffffffffffffffffffffffffffffffffffffff";
    let old = Hub::model();
    let mut new = Hub::model();
    new.commit = NEXT;
    new.files.push(("README.md", b"# New".to_vec()));
    let updated = Arc::new(AtomicBool::new(false));
    let is_updated = updated.clone();
    let server =
        Server::start(
            move |request| {
                if is_updated.load(Ordering::SeqCst) { new.answer(request) } else { old.answer(request) }
            },
        );
    let place = Place::new(&server);
    let before = place.pull(NAME).unwrap();
    updated.store(true, Ordering::SeqCst);
    server.requests();
    let after = place.pull(NAME).unwrap();
    assert!(after.ends_with(NEXT) && before.ends_with(COMMIT) && before.exists());
    assert_eq!(resolve(NAME, &place.settings).unwrap(), after);
    let got = server.requests().into_iter().filter(|request| request.method == "GET").map(|request| request.path);
    let got: Vec<String> = got.filter(|path| !path.starts_with("/api/")).collect();
    assert_eq!(got, [format!("/me/model/resolve/{NEXT}/README.md")], "what is here is not fetched again");
}

#[test]
fn unknown_and_closed_repositories() {
    let cases: [(u16, &'static str, Option<&str>, &str); 5] = [
        (404, "RepoNotFound", None, "has no model me/model; check its name"),
        (401, "RepoNotFound", None, "check the name; for a private model set HF_TOKEN"),
        (401, "GatedRepo", None, "accept the model's terms on its page, then set HF_TOKEN"),
        (403, "GatedRepo", Some("hf_x"), "the token does not open it"),
        (500, "", None, "try again later"),
    ];
    for (status, code, token, advice) in cases {
        let server = Server::start(move |_| reply(status, &[("X-Error-Code", code)], b"{}"));
        let mut place = Place::new(&server);
        place.settings.token = token.map(str::to_owned);
        let error = place.pull(NAME).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(NAME) && !error.contains('\n'), "{status}: {error}");
        assert!(!place.settings.cache.exists(), "nothing is written for nothing");
    }
}

#[test]
fn answers_that_are_no_list_of_files() {
    let list = |files: &str| format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#);
    let cases = [
        ("<html>Welcome to the airport's network</html>".to_owned(), "no list of files"),
        (r#"{"sha":"../../../etc","siblings":[]}"#.to_owned(), "is no commit"),
        (list(""), "holds no weights"),
        (list(r#"{"rfilename":"../../model.safetensors"},{"rfilename":"/model.gguf"}"#), "holds no weights"),
        (list(r#"{"rfilename":"a.gguf"},{"rfilename":"b.gguf"}"#), "choose with --file: a.gguf, b.gguf"),
        (" ".repeat(17 << 20), "cannot be reached"),
    ];
    for (answer, part) in cases {
        let server = Server::start(move |_| reply(200, &[], answer.as_bytes()));
        let error = Place::new(&server).pull(NAME).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_content_cannot_be_named_out_of_the_cache() {
    let server = Server::start(|request| {
        if request.path.starts_with("/api/") {
            let list = format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"model.safetensors"}}]}}"#);
            return reply(200, &[], list.as_bytes());
        }
        reply(200, &[("ETag", "\"../../../../evil\"")], b"")
    });
    let error = Place::new(&server).pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
}

#[test]
fn a_repository_that_was_renamed_is_found() {
    let mut hub = Hub::model();
    hub.repository = "me/renamed";
    let server = Server::start(move |request| match request.path.replace("/me/model/", "/me/renamed/") {
        path if path == request.path => hub.answer(request),
        path => reply(307, &[("Location", &path)], b""),
    });
    let place = Place::new(&server);
    assert!(place.pull(NAME).unwrap().join("model.safetensors").exists());
}

#[test]
fn offline_what_is_here_is_found_and_the_rest_is_not() {
    let server = Hub::model().start();
    let mut place = Place::new(&server);
    let folder = place.pull(NAME).unwrap();
    place.settings.offline = true;
    server.requests();
    assert_eq!(place.pull(NAME).unwrap(), folder);
    assert!(matches!(place.pull("me/other"), Err(HubError::Offline { .. })));
    assert!(server.requests().is_empty());
}

#[test]
fn one_of_several_files_is_chosen() {
    let server = Hub::new(&[("model-Q4_0.gguf", b"four"), ("model-Q8_0.gguf", b"eight"), ("README.md", b"#")]).start();
    let place = Place::new(&server);
    let files = vec![Pattern::new("*Q8_0*").unwrap()];
    let folder = place.pull_with(NAME, &PullOptions { files, ..without_tokenizer() }, &mut |_| {}).unwrap();
    assert_eq!(files_in(&folder), ["README.md", "model-Q8_0.gguf"]);
}

/// An OpenELM without tokenizer, and the repositories that have LLaMA's.
fn openelm_beside(tokenizers: Vec<(&'static str, Vec<u8>)>) -> Server {
    let model = Hub::new(&[("config.json", br#"{"model_type":"openelm"}"#), ("model.safetensors", b"weights")]);
    Server::start(move |request| {
        for (repository, bytes) in &tokenizers {
            if request.path == format!("/{repository}/resolve/main/tokenizer.model") {
                return file(request, bytes, "a");
            }
        }
        model.answer(request)
    })
}

#[test]
fn an_openelm_gets_llamas_tokenizer_from_whoever_has_it() {
    let Some(path) = shared("golden/tokenizer/tokenizer.model") else { return };
    let bytes = std::fs::read(path).unwrap();
    let other = vec![0; bytes.len()];
    let first = vec![("TinyLlama/TinyLlama-1.1B-Chat-v1.0", bytes.clone())];
    let second = vec![("microsoft/Phi-3-mini-4k-instruct", bytes.clone())];
    let false_first = [vec![("TinyLlama/TinyLlama-1.1B-Chat-v1.0", other)], second.clone()].concat();
    for tokenizers in [first, second, false_first] {
        let server = openelm_beside(tokenizers);
        let place = Place::new(&server);
        let folder = place.pull(NAME).unwrap();
        assert_eq!(std::fs::read(folder.join("tokenizer.model")).unwrap(), bytes);
        openelm_model::Tokenizer::open(&folder).unwrap();
    }
}

#[test]
fn a_false_tokenizer_is_not_taken_and_the_model_stays() {
    let wrong = vec![0; 499_723];
    let repositories = ["TinyLlama/TinyLlama-1.1B-Chat-v1.0", "microsoft/Phi-3-mini-4k-instruct"];
    let server = openelm_beside(repositories.map(|repository| (repository, wrong.clone())).into());
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(&error, HubError::Tokenizer { error } if matches!(**error, HubError::Hash { .. })), "{error}");
    let folder = resolve(NAME, &place.settings).unwrap();
    assert_eq!(files_in(&folder), ["config.json", "model.safetensors"]);
    place.pull_with(NAME, &without_tokenizer(), &mut |_| {}).unwrap();
}

#[test]
fn another_tokenizer_can_be_had() {
    let bytes = std::fs::read(golden("tokenizer_small/tokenizer.model")).unwrap();
    let server = openelm_beside(vec![("me/words", bytes.clone())]);
    let place = Place::new(&server);
    let Name::Repository(words) = Name::parse("me/words").unwrap() else { unreachable!() };
    let options = PullOptions { tokenizer: TokenizerChoice::Of(words), ..PullOptions::default() };
    let folder = place.pull_with(NAME, &options, &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(folder.join("tokenizer.model")).unwrap(), bytes);
}

#[test]
fn what_is_no_openelm_gets_no_tokenizer() {
    let server = Hub::model().start();
    let place = Place::new(&server);
    let folder = place.pull(NAME).unwrap();
    assert!(!folder.join("tokenizer.model").exists());
}

/// Apple's server, with files of the reference data, and a hub that has a small tokenizer.
fn apple(files: &'static [(&'static str, &'static str)]) -> Server {
    Server::start(move |request| {
        let path = files.iter().find(|(path, _)| *path == request.path);
        path.map_or_else(|| reply(404, &[], b""), |(_, name)| file(request, &std::fs::read(golden(name)).unwrap(), "a"))
    })
}

#[test]
fn corenets_weights_come_with_the_configuration_that_opens_them() {
    let server = apple(&[
        ("/pretrained/270M/checkpoint_average.pt", "tiny/corenet/checkpoint_average.pt"),
        ("/pretrained/3B/checkpoint_epoch_0_iter_49999.pt", "tiny/corenet/checkpoint_average.pt"),
        ("/pretrained/450M/training_checkpoint_last.pt", "tiny/corenet/checkpoint_average.pt"),
    ]);
    let place = Place::new(&server);
    for (name, table) in [
        ("corenet/270M", "[32128, 1280]"),
        ("corenet/3B/iter_49999", "[32128, 3072]"),
        ("corenet/450M/training_last", "[32128, 1536]"),
    ] {
        let folder = place.pull_with(name, &without_tokenizer(), &mut |_| {}).unwrap();
        assert_eq!(folder, place.settings.home.join("openelm").join(name));
        assert_eq!(resolve(name, &place.settings).unwrap(), folder);
        // The file served is that of a tiny model: what the configuration asks for instead shows that it is understood.
        let error = openelm_formats::open(&folder).unwrap_err().to_string();
        assert!(error.contains(table), "{error}");
        std::fs::remove_file(folder.join("config.yaml")).unwrap();
        openelm_formats::open(&folder).unwrap();
        assert!(resolve(name, &place.settings).is_err(), "without its configuration it is not here");
    }
    assert!(matches!(place.pull("corenet/450M"), Err(HubError::NotFound { .. })));
}

#[test]
fn corenets_mlx_folders_open() {
    let server = apple(&[
        ("/mlx/1.1B/config.json", "mlx/corenet_open_elm/float16/config.json"),
        ("/mlx/1.1B/weights.safetensors", "mlx/corenet_open_elm/float16/weights.safetensors"),
        ("/me/words/resolve/main/tokenizer.model", "tokenizer_small/tokenizer.model"),
    ]);
    let place = Place::new(&server);
    let Name::Repository(words) = Name::parse("me/words").unwrap() else { unreachable!() };
    let options = PullOptions { tokenizer: TokenizerChoice::Of(words), ..PullOptions::default() };
    let folder = place.pull_with("corenet/mlx/1_1b", &options, &mut |_| {}).unwrap();
    assert_eq!(folder, place.settings.home.join("openelm/corenet/mlx/1.1B"));
    assert_eq!(files_in(&folder), ["config.json", "tokenizer.model", "weights.safetensors"]);
    openelm_formats::open(&folder).unwrap();
    openelm_model::Tokenizer::open(&folder).unwrap();
}

#[test]
fn a_small_file_is_checked_by_gits_hash() {
    let hub = Hub::model();
    let spoilt = Arc::new(AtomicBool::new(true));
    let is_spoilt = spoilt.clone();
    let server = Server::start(move |request| {
        let spoil = is_spoilt.load(Ordering::SeqCst) && request.path.ends_with("config.json");
        if !spoil {
            return hub.answer(request);
        }
        // As long as the sound one, under its hash.
        let bytes = hub.content("config.json");
        file(request, &vec![b' '; bytes.len()], &git_hash(bytes))
    });
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Hash { kind: "git hash", .. }), "{error}");
    assert!(error.to_string().starts_with("config.json is not the file it should be"), "{error}");
    assert!(resolve(NAME, &place.settings).is_err());
    spoilt.store(false, Ordering::SeqCst);
    let mut checked = Vec::new();
    let folder = place.pull_with(NAME, &without_tokenizer(), &mut |event| {
        if let Event::Finished { file, checked: true, .. } = event {
            checked.push(file.to_owned());
        }
    });
    assert_eq!(checked, ["config.json", "model.safetensors"]);
    // What changed on the disk since is fetched again.
    let config = folder.unwrap().join("config.json");
    std::fs::write(&config, "{}").unwrap();
    place.pull_with(NAME, &without_tokenizer(), &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(&config).unwrap(), br#"{"model_type":"llama"}"#);
}

#[test]
fn by_force_all_files_come_again() {
    let server = Hub::model().start();
    let place = Place::new(&server);
    place.pull(NAME).unwrap();
    let fetched = |force| {
        let (mut here, mut files) = (0, 0);
        let options = PullOptions { force, ..PullOptions::default() };
        let folder = place.pull_with(NAME, &options, &mut |event| match event {
            Event::Planned { here: count, .. } => here = count,
            Event::Finished { .. } => files += 1,
            _ => {}
        });
        assert!(folder.unwrap().join("model.safetensors").exists());
        (here, files)
    };
    assert_eq!((fetched(false), fetched(true)), ((2, 0), (0, 2)));
}

/// Times and numbers of everything below `folder`: they change with every write, and with every file that takes another's place.
#[cfg(unix)]
fn states(folder: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut states = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let data = entry.path().symlink_metadata().unwrap();
        states.push((entry.path(), data.ino(), data.ctime(), data.ctime_nsec()));
        if data.is_dir() {
            states.extend(self::states(&entry.path()));
        }
    }
    states.sort();
    states
}

#[cfg(unix)]
#[test]
fn nothing_is_written_where_all_is_here() {
    let server = Hub::model().start();
    let mut place = Place::new(&server);
    let apple = apple(&[("/pretrained/270M/checkpoint_average.pt", "tiny/corenet/checkpoint_average.pt")]);
    place.settings.corenet_endpoint = apple.url();
    let pull = |name| place.pull_with(name, &without_tokenizer(), &mut |_| {}).unwrap();
    let folders = [pull(NAME), pull("corenet/270M")];
    let before = states(&place.settings.home);
    assert_eq!([pull(NAME), pull("corenet/270M")], folders);
    assert_eq!([resolve(NAME, &place.settings).unwrap(), resolve("corenet/270M", &place.settings).unwrap()], folders);
    assert_eq!(states(&place.settings.home), before);
}
