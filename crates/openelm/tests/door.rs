//! What an app does, with the model that is in the repository.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use openelm::{CacheType, Error, Finish, LoadOptions, Model, Options, Piece, SamplingOptions, Session};

fn storyteller() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller"))
}

fn options(max_tokens: usize) -> Options {
    let sampling = SamplingOptions { temperature: 0.0, ..SamplingOptions::default() };
    Options { sampling, max_tokens, ..Options::default() }
}

fn text(session: &mut Session, prompt: &str, options: Options) -> String {
    session.generate(prompt, options).unwrap().map(|piece| piece.unwrap().text).collect()
}

#[test]
fn sessions_are_owned_and_can_be_sent_to_threads() {
    fn owned<T: Send + 'static>() {}
    owned::<Model>();
    owned::<Session>();
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Model>();
    let model = Model::open(storyteller()).unwrap();
    let expected = text(&mut model.session(), "The fox", options(30));
    assert!(!expected.trim().is_empty());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let mut session = model.session();
            std::thread::spawn(move || text(&mut session, "The fox", options(30)))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn a_session_goes_on_where_it_stopped_and_can_be_forked() {
    let model =
        Model::open_with(storyteller(), &LoadOptions { cache: CacheType::F16, ..LoadOptions::default() }).unwrap();
    let mut whole = model.session();
    let expected = text(&mut whole, "Once upon a time", options(40));
    let mut session = model.session();
    let mut generation = session.generate("Once upon a time", options(40)).unwrap();
    let pieces: Vec<Piece> = generation.by_ref().take(5).map(Result::unwrap).collect();
    assert_eq!(generation.finish(), None);
    drop(generation);
    let first: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let drawn: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
    let mut fork = session.fork();
    let rest = text(&mut session, "", options(40 - drawn));
    assert_eq!(first.clone() + &rest, expected);
    assert_eq!(text(&mut fork, "", options(40 - drawn)), rest);
    assert_eq!(session.text(), format!("Once upon a time{expected}"));
    assert_eq!(session.tokens(), whole.tokens());
}

#[test]
fn too_little_memory_and_files_that_are_none_are_refused_in_a_sentence() {
    let little = LoadOptions { memory: Some(1 << 20), ..LoadOptions::default() };
    assert!(matches!(Model::open_with(storyteller(), &little), Err(Error::Memory(_))));
    let Err(error) = Model::open("no/such/model") else { panic!("it opened") };
    assert!(error.to_string().contains("no/such/model"), "{error}");
    let model = Model::open_with(storyteller(), &LoadOptions { context: Some(12), ..LoadOptions::default() }).unwrap();
    let mut session = model.session();
    let mut generation = session.generate("Once upon a time", options(100)).unwrap();
    generation.by_ref().for_each(|piece| drop(piece.unwrap()));
    assert_eq!(generation.finish(), Some(Finish::ContextFull));
    assert_eq!(session.tokens().len(), 12);
    assert!(session.generate("And then", options(1)).is_err());
}
