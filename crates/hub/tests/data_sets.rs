//! Data sets of a hub: split by split, kept where Hugging Face's own tools keep them.

#![allow(clippy::unwrap_used)]

mod support;

use openelm_hub::{HubError, pull_split};
use openelm_testing::server::{Request, Server, Step, file, reply};
use support::Place;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn answer(request: &Request) -> Vec<Step> {
    if request.path == "/api/datasets/me/set/revision/refs%2Fconvert%2Fparquet" {
        let names =
            ["easy/test/0000.parquet", "easy/test/0001.parquet", "easy/train/0000.parquet", "../up", "README.md"];
        let files: Vec<String> = names.iter().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
        return reply(200, &[], format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(",")).as_bytes());
    }
    let begins = format!("/datasets/me/set/resolve/{COMMIT}/easy/test/");
    match request.path.strip_prefix(&begins) {
        Some(name) => file(request, name.as_bytes(), &format!("of-{name}")),
        None => reply(404, &[], b""),
    }
}

#[test]
fn a_split_is_fetched_once_and_found_again_without_the_network() {
    let server = Server::start(answer);
    let mut place = Place::new(&server);
    let pull = |place: &Place, split: &str| pull_split("me/set", "easy", split, &place.settings, &mut |_| {});
    let files = pull(&place, "test").unwrap();
    let contents: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert_eq!(contents, ["0000.parquet", "0001.parquet"]);
    assert!(files[0].ends_with(format!("datasets--me--set/snapshots/{COMMIT}/easy/test/0000.parquet")));

    server.requests();
    assert_eq!(pull(&place, "test").unwrap(), files);
    assert!(server.requests().is_empty());
    place.settings.offline = true;
    assert_eq!(pull(&place, "test").unwrap(), files);
    assert!(matches!(pull(&place, "train"), Err(HubError::Offline { .. })));
}

#[test]
fn a_split_that_is_not_there_is_answered_with_those_that_are() {
    let server = Server::start(answer);
    let place = Place::new(&server);
    let error = pull_split("me/set", "easy", "validation", &place.settings, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("easy/validation") && error.contains("easy/test, easy/train"), "{error}");
    assert!(matches!(pull_split("../x", "a", "b", &place.settings, &mut |_| {}), Err(HubError::Name { .. })));
}
