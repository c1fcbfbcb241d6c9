//! One file from a plain address, from servers of every kind.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openelm_hub::{Event, HubError, PullOptions};
use openelm_testing::server::{Request, Server, Step, cut, file, head, reply};
use sha2::{Digest, Sha256};
use support::{Place, content, files_in};

/// A model of one file, without tokenizer: the shortest way to a plain address.
const NAME: &str = "corenet/lora/270M";
const FILE: &str = "openelm_lora_270M.pt";

fn folder(place: &Place) -> PathBuf {
    place.settings.home.join("openelm/corenet/lora/270M")
}

/// A server whose answers are told by their number.
fn answers(answer: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| answer(count.fetch_add(1, Ordering::SeqCst), request))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect()
}

#[test]
fn a_file_comes_whole_with_its_hash_and_comes_once() {
    let bytes = content(300_000);
    let served = bytes.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/peft/openelm_lora_270M.pt" => file(request, &served, "a"),
        _ => reply(404, &[], b""),
    });
    let place = Place::new(&server);
    let mut events = Vec::new();
    let at = place.pull_with(NAME, &PullOptions::default(), &mut |event| {
        events.push(match event {
            Event::Planned { files, here, .. } => format!("planned {files} {here}"),
            Event::Started { size, from, .. } => format!("started {size:?} {from}"),
            Event::Progress { received } if received < 300_000 => return,
            Event::Progress { received } => format!("received {received}"),
            Event::Retrying { reason } => format!("retrying {reason}"),
            Event::Finished { size, sha256, checked, .. } => format!("finished {size} {} {checked}", &sha256[..8]),
        });
    });
    assert_eq!(at.unwrap(), folder(&place));
    assert_eq!(std::fs::read(folder(&place).join(FILE)).unwrap(), bytes);
    assert_eq!(files_in(&folder(&place)), [FILE]);
    // The hash is that of the bytes that were served.
    let finished = format!("finished 300000 {} false", &sha256(&bytes)[..8]);
    let expected = ["planned 1 0", "started Some(300000) 0", "received 300000", &finished];
    assert_eq!(events, expected);
    server.requests();
    place.pull(NAME).unwrap();
    assert!(server.requests().is_empty(), "what is here is not fetched again");
}

#[test]
fn what_breaks_off_goes_on_with_the_next_call() {
    let bytes = content(200_000);
    let served = bytes.clone();
    let server = answers(move |n, request| {
        let whole = file(request, &served, "a");
        if n < 2 { cut(whole, 70_000) } else { whole }
    });
    let place = Place::new(&server);
    let first = place.pull(NAME).unwrap_err();
    assert!(matches!(first, HubError::BrokeOff { received: 70_000, kept: true, .. }), "{first}");
    assert!(first.to_string().contains("70000 of 200000 bytes"), "{first}");
    assert!(first.to_string().ends_with("the same command goes on from there"), "{first}");
    assert!(!folder(&place).join(FILE).exists());
    assert!(matches!(place.pull(NAME), Err(HubError::BrokeOff { received: 140_000, .. })));
    place.pull(NAME).unwrap();
    assert_eq!(std::fs::read(folder(&place).join(FILE)).unwrap(), bytes);
    assert_eq!(files_in(&folder(&place)), [FILE], "nothing is left over");
    let asked = server.requests();
    assert_eq!(asked[2].header("range"), Some("bytes=140000-"));
    assert_eq!(asked[2].header("if-range"), Some("\"a\""));
}

#[test]
fn what_breaks_off_is_tried_again_within_the_same_call() {
    let bytes = content(100_000);
    let served = bytes.clone();
    let server = answers(move |n, request| {
        let whole = file(request, &served, "a");
        if n < 3 { cut(whole, 30_000) } else { whole }
    });
    let mut place = Place::new(&server);
    place.settings.patience.retries = 3;
    let mut retries = 0;
    let result = place.pull_with(NAME, &PullOptions::default(), &mut |event| {
        retries += usize::from(matches!(event, Event::Retrying { .. }));
    });
    assert_eq!(std::fs::read(result.unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(retries, 3);
}

#[test]
fn headway_renews_patience() {
    let bytes = content(5 << 20);
    let served = bytes.clone();
    let server = Server::start(move |request| cut(file(request, &served, "a"), (1 << 20) + 1));
    let mut place = Place::new(&server);
    place.settings.patience.retries = 1;
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes);
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    for honest in [true, false] {
        let (old, new) = (content(50_000), content(40_000));
        let served = new.clone();
        let server = answers(move |n, request| match n {
            0 => cut(file(request, &old, "old"), 20_000),
            // This one overlooks `If-Range` and sends the rest of another file.
            1 if !honest => {
                let range = [("ETag", "\"new\""), ("Content-Range", "bytes 20000-39999/40000")];
                reply(206, &range, &served[20_000..])
            }
            _ => file(request, &served, "new"),
        });
        let place = Place::new(&server);
        place.pull(NAME).unwrap_err();
        assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), new);
    }
}

#[test]
fn a_server_that_ignores_ranges_sends_the_whole_again() {
    let bytes = content(60_000);
    let served = bytes.clone();
    let server = answers(move |n, _| {
        let whole = reply(200, &[("ETag", "\"a\"")], &served);
        if n == 0 { cut(whole, 25_000) } else { whole }
    });
    let place = Place::new(&server);
    place.pull(NAME).unwrap_err();
    let mut from = Vec::new();
    let result = place.pull_with(NAME, &PullOptions::default(), &mut |event| {
        if let Event::Started { from: start, .. } = event {
            from.push(start);
        }
    });
    assert_eq!(std::fs::read(result.unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(from, [0], "progress begins anew");
}

#[test]
fn a_server_that_sends_another_piece_is_asked_for_the_whole() {
    let bytes = content(60_000);
    let served = bytes.clone();
    let server = answers(move |n, request| match n {
        0 => cut(file(request, &served, "a"), 25_000),
        1 => reply(206, &[("Content-Range", "bytes 10000-59999/60000")], &served[10_000..]),
        _ => file(request, &served, "a"),
    });
    let place = Place::new(&server);
    place.pull(NAME).unwrap_err();
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(ranges(&server), [None, Some("bytes=25000-".to_owned()), None]);
}

#[test]
fn more_than_the_file_is_now_means_to_begin_anew() {
    let (long, short) = (content(60_000), content(10_000));
    let served = short.clone();
    let server = answers(
        move |n, request| {
            if n == 0 { cut(file(request, &long, "a"), 30_000) } else { file(request, &served, "a") }
        },
    );
    let place = Place::new(&server);
    place.pull(NAME).unwrap_err();
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), short);
    assert_eq!(ranges(&server), [None, Some("bytes=30000-".to_owned()), None]);
}

#[test]
fn without_etag_or_date_nothing_is_put_together() {
    let bytes = content(60_000);
    let served = bytes.clone();
    let server = answers(move |n, _| {
        // A weak tag says no more than none.
        let whole = reply(200, &[("ETag", "W/\"a\"")], &served);
        if n == 0 { cut(whole, 25_000) } else { whole }
    });
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(error.to_string().ends_with("the same command begins it anew"), "{error}");
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(ranges(&server), [None, None]);
}

#[test]
fn a_date_serves_as_well_as_an_etag() {
    let bytes = content(60_000);
    let served = bytes.clone();
    let date = "Mon, 01 Apr 2024 00:00:00 GMT";
    let server = answers(move |n, _| match n {
        0 => cut(reply(200, &[("Last-Modified", date)], &served), 25_000),
        _ => {
            let headers = [("Last-Modified", date), ("Content-Range", "bytes 25000-59999/60000")];
            reply(206, &headers, &served[25_000..])
        }
    });
    let place = Place::new(&server);
    place.pull(NAME).unwrap_err();
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(server.requests()[1].header("if-range"), Some(date));
}

#[test]
fn a_length_that_is_a_lie_does_no_harm() {
    let server = Server::start(|_| {
        vec![head(200, &[("Content-Length", "18446744073709551615"), ("ETag", "\"a\"")]), Step::Send(vec![1; 1000])]
    });
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::BrokeOff { received: 1000, .. }), "{error}");

    let server = Server::start(|_| vec![head(200, &[("Content-Length", "many")]), Step::Send(vec![1; 1000])]);
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(
        matches!(error, HubError::Answer { .. } | HubError::BrokeOff { .. } | HubError::Connection { .. }),
        "{error}"
    );
    assert!(!folder(&place).join(FILE).exists());
}

#[test]
fn chunks_without_a_length_are_taken_whole_or_not_at_all() {
    let chunked = |end: &str| {
        let bytes = content(400);
        let body = [b"100\r\n", &bytes[..256], b"\r\n90\r\n", &bytes[256..], b"\r\n", end.as_bytes()].concat();
        vec![head(200, &[("Transfer-Encoding", "chunked"), ("ETag", "\"a\"")]), Step::Send(body)]
    };
    let server = answers(move |n, _| chunked(if n == 0 { "" } else { "0\r\n\r\n" }));
    let place = Place::new(&server);
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::BrokeOff { .. }), "{error}");
    assert!(!folder(&place).join(FILE).exists());
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), content(400));
}

#[test]
fn redirects_are_followed_with_the_range_and_not_for_ever() {
    let bytes = content(60_000);
    let served = bytes.clone();
    let cdn = answers(move |n, request| {
        let whole = file(request, &served, "a");
        if n == 0 { cut(whole, 25_000) } else { whole }
    });
    let target = format!("{}/far/away", cdn.url());
    let server = Server::start(move |_| reply(302, &[("Location", &target)], b""));
    let place = Place::new(&server);
    place.pull(NAME).unwrap_err();
    assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes);
    assert_eq!(ranges(&cdn), [None, Some("bytes=25000-".to_owned())]);

    let server = Server::start(|request| reply(302, &[("Location", &request.path)], b""));
    let error = Place::new(&server).pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
}

#[test]
fn statuses_say_what_to_do() {
    for (status, parts) in [
        (404, "is not there (status 404); check the name"),
        (401, "is refused (status 401)"),
        (403, "is refused (status 403)"),
        (500, "answers with status 500; try again later"),
        (429, "answers with status 429; try again later"),
        (206, "gives a wrong answer"),
        (204, "answers with status 204"),
    ] {
        let server = Server::start(move |_| reply(status, &[], b""));
        let place = Place::new(&server);
        let error = place.pull(NAME).unwrap_err().to_string();
        assert!(error.contains(parts) && error.contains(&server.url()), "{status}: {error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(!folder(&place).join(FILE).exists());
    }
}

#[test]
fn a_server_in_trouble_is_asked_again_but_not_one_that_refuses() {
    let server = answers(|n, request| if n == 0 { reply(503, &[], b"") } else { file(request, &content(400), "a") });
    let mut place = Place::new(&server);
    place.settings.patience.retries = 2;
    place.pull(NAME).unwrap();
    assert_eq!(server.requests().len(), 2);

    let server = Server::start(|_| reply(404, &[], b""));
    let mut place = Place::new(&server);
    place.settings.patience.retries = 2;
    place.pull(NAME).unwrap_err();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn slow_servers_are_waited_for_and_silent_ones_are_not() {
    let pause = |milliseconds| Step::Pause(Duration::from_millis(milliseconds));
    let send = |bytes: &[u8]| Step::Send(bytes.to_owned());
    let length = [("Content-Length", "400"), ("ETag", "\"a\"")];
    let slow = Server::start(move |_| {
        let mut steps = vec![head(200, &length)];
        for bytes in content(400).chunks(80) {
            steps.extend([pause(150), send(bytes)]);
        }
        steps
    });
    assert_eq!(std::fs::read(Place::new(&slow).pull(NAME).unwrap().join(FILE)).unwrap(), content(400));

    let silent = Server::start(move |_| vec![head(200, &length), send(b"sil"), pause(5000), send(b"ent")]);
    let error = Place::new(&silent).pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::BrokeOff { received: 3, .. }), "{error}");
    let dumb = Server::start(move |_| vec![pause(5000)]);
    let error = Place::new(&dumb).pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error}");
}

#[test]
fn nobody_at_the_address() {
    let server = Server::start(|_| Vec::new());
    let mut place = Place::new(&server);
    place.settings.corenet_endpoint = "http://127.0.0.1:1".to_owned();
    let error = place.pull(NAME).unwrap_err().to_string();
    assert!(error.contains("http://127.0.0.1:1/") && error.contains("cannot be reached"), "{error}");
}

#[test]
fn one_process_at_a_time_fetches_a_file() {
    let server = Server::start(|request| file(request, &content(400), "a"));
    let place = Place::new(&server);
    std::fs::create_dir_all(folder(&place)).unwrap();
    let held = File::create(folder(&place).join(".lock")).unwrap();
    held.lock().unwrap();
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(error, HubError::Busy { .. }), "{error}");
    drop(held);
    place.pull(NAME).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let server = Server::start(|request| file(request, &content(400), "a"));
    let mut place = Place::new(&server);
    // A file where a folder should be is in the way of everyone, root too.
    let blocked = place.settings.home.join("blocked");
    std::fs::write(&blocked, b"").unwrap();
    place.settings.home = blocked.clone();
    let error = place.pull(NAME).unwrap_err();
    assert!(matches!(&error, HubError::Io { path, .. } if path.starts_with(&blocked)), "{error}");
    assert!(server.requests().is_empty());
}

#[test]
fn offline_nothing_is_asked() {
    let server = Server::start(|request| file(request, &content(400), "a"));
    let mut place = Place::new(&server);
    place.settings.offline = true;
    let error = place.pull(NAME).unwrap_err().to_string();
    assert!(error.contains(NAME) && error.contains("HF_HUB_OFFLINE"), "{error}");
    place.settings.offline = false;
    place.pull(NAME).unwrap();
    server.requests();
    place.settings.offline = true;
    assert_eq!(place.pull(NAME).unwrap(), folder(&place));
    assert!(server.requests().is_empty());
}

#[test]
fn what_is_no_checkpoint_is_not_taken_for_one() {
    let bytes = content(10_000);
    let page = b"<html>Sign in first</html>".to_vec();
    // Without a length a body that is cut in half ends like a whole one.
    let unmeasured = |bytes: &[u8]| vec![head(200, &[("ETag", "\"a\"")]), Step::Send(bytes.to_owned())];
    for (what, served, part) in [
        ("a page", reply(200, &[], &page), "the server sent a web page in its place"),
        ("another page", reply(200, &[], b" \n<!DOCTYPE HTML><p>"), "web page"),
        ("nothing", reply(200, &[], b""), "no whole PyTorch file"),
        ("half", unmeasured(&bytes[..5000]), "no whole PyTorch file"),
        ("all but a byte", unmeasured(&bytes[..9999]), "no whole PyTorch file"),
        ("no archive", reply(200, &[], &[7; 3000]), "no whole PyTorch file"),
        (
            "a pointer",
            reply(200, &[], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "Git LFS pointer",
        ),
    ] {
        let whole = bytes.clone();
        let server = answers(move |n, request| if n == 0 { served.clone() } else { file(request, &whole, "b") });
        let place = Place::new(&server);
        let error = place.pull(NAME).unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{what}: {error}");
        let message = error.to_string();
        assert!(message.contains(part) && message.contains(FILE), "{what}: {message}");
        assert!(!message.contains(".part") && !message.contains('\n'), "{what}: {message}");
        assert_eq!(files_in(&folder(&place)), [""; 0], "{what} left something");
        assert_eq!(std::fs::read(place.pull(NAME).unwrap().join(FILE)).unwrap(), bytes, "{what}");
    }
    // Safetensors say how long they are, and JSON has an end.
    let served =
        |name: &str| std::fs::read(openelm_testing::golden("mlx/corenet_open_elm/float16").join(name)).unwrap();
    for cut_file in ["config.json", "weights.safetensors"] {
        let server = Server::start(move |request| {
            let name = request.path.rsplit('/').next().unwrap();
            let bytes = served(name);
            unmeasured(if name == cut_file { &bytes[..bytes.len() / 2] } else { &bytes })
        });
        let error = Place::new(&server).pull("corenet/mlx/270M").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{cut_file} is not the file it should be")), "{error}");
    }
}

#[test]
fn what_was_damaged_since_is_not_here() {
    let bytes = content(10_000);
    let served = bytes.clone();
    let server = Server::start(move |request| file(request, &served, "a"));
    let place = Place::new(&server);
    let target = place.pull(NAME).unwrap().join(FILE);
    for damaged in [&b"<html>"[..], &bytes[..5000]] {
        std::fs::write(&target, damaged).unwrap();
        let mut here = None;
        place
            .pull_with(NAME, &PullOptions::default(), &mut |event| {
                if let Event::Planned { here: count, .. } = event {
                    here = Some(count);
                }
            })
            .unwrap();
        assert_eq!(here, Some(0));
        assert_eq!(std::fs::read(&target).unwrap(), bytes);
    }
}

#[test]
fn by_force_what_is_here_is_fetched_again() {
    let server = answers(|n, request| file(request, &content(10_000 + n), "a"));
    let place = Place::new(&server);
    let target = place.pull(NAME).unwrap().join(FILE);
    place.pull(NAME).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), content(10_000));
    let options = PullOptions { force: true, ..PullOptions::default() };
    place.pull_with(NAME, &options, &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), content(10_001));
}
