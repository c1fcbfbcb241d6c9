//! What other languages do with the handles, with the model that is in the repository.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openelm_ffi::{
    Finish, Generation, GenerationOptions, LoadOptions, Message, Model, OpenElmError, Piece, Session, footprint, guard,
};

const STORYTELLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller");
const PROMPT: &str = "Once upon a time";

fn model() -> Arc<Model> {
    Model::open(STORYTELLER.into(), LoadOptions::default()).unwrap()
}

fn greedy(max_tokens: u32) -> GenerationOptions {
    GenerationOptions { temperature: 0.0, max_tokens, ..GenerationOptions::default() }
}

fn pieces(generation: &Generation, most: usize) -> Vec<Piece> {
    (0..most).map_while(|_| generation.next().unwrap()).collect()
}

fn text(session: &Session, prompt: &str, max_tokens: u32) -> String {
    let generation = session.generate(prompt.into(), greedy(max_tokens)).unwrap();
    pieces(&generation, usize::MAX).into_iter().map(|piece| piece.text).collect()
}

/// What the door below says, without threads and channels.
fn expected(max_tokens: usize) -> (String, Vec<u32>) {
    let sampling = openelm::SamplingOptions { temperature: 0.0, ..openelm::SamplingOptions::default() };
    let mut session = openelm::Model::open(STORYTELLER).unwrap().session();
    let options = openelm::Options { sampling, max_tokens, ..openelm::Options::default() };
    let text = session.generate(PROMPT, options).unwrap().map(|piece| piece.unwrap().text).collect();
    (text, session.tokens().to_vec())
}

#[test]
fn a_text_is_that_of_the_library_below() {
    let model = model();
    let session = model.session().unwrap();
    let generation = session.generate(PROMPT.into(), greedy(40)).unwrap();
    let (text, tokens) = expected(40);
    let read = pieces(&generation, usize::MAX);
    assert_eq!(read.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
    assert_eq!(generation.finish(), Some(Finish::MaxTokens));
    assert_eq!(generation.next().unwrap(), None);
    assert_eq!(session.tokens().unwrap(), tokens);
    assert_eq!(session.text().unwrap(), PROMPT.to_owned() + &text);
    assert_eq!(model.tokenize(PROMPT.into(), true).unwrap(), tokens[..tokens.len() - 40]);
    assert_eq!(model.detokenize(tokens).unwrap(), PROMPT.to_owned() + &text);
    let described = model.describe();
    assert_eq!((described.layers, described.width, described.context), (9, 192, 256));
    assert_eq!((described.format.as_str(), described.begin, described.ends), ("Hugging Face", Some(1), vec![2]));
}

#[test]
fn a_cancelled_session_holds_what_was_handed_out_and_goes_on_to_the_same_text() {
    let session = model().session().unwrap();
    let generation = session.generate(PROMPT.into(), greedy(200)).unwrap();
    let read = pieces(&generation, 7);
    generation.cancel();
    assert_eq!(generation.next().unwrap(), None);
    assert_eq!(generation.finish(), Some(Finish::Cancelled));
    let drawn: usize = read.iter().map(|piece| piece.tokens.len()).sum();
    let (whole, tokens) = expected(60);
    let prompt_tokens = tokens.len() - 60;
    // Waits for the thread, which may be at a token that nobody will hear of.
    assert_eq!(session.tokens().unwrap(), tokens[..prompt_tokens + drawn]);
    let first: String = read.into_iter().map(|piece| piece.text).collect();
    assert_eq!(first + &text(&session, "", 60 - drawn as u32), whole);
}

#[test]
fn unread_pieces_were_never_said() {
    let session = model().session().unwrap();
    let generation = session.generate(PROMPT.into(), greedy(3)).unwrap();
    // All three are in the channel by now, or soon; one is read.
    assert!(generation.is_ready_within(Duration::from_secs(60)));
    let read = pieces(&generation, 1);
    drop(generation);
    let (_, tokens) = expected(3);
    assert_eq!(session.tokens().unwrap(), tokens[..tokens.len() - 3 + read[0].tokens.len()]);
}

#[test]
fn a_prompt_can_be_cancelled_while_it_is_read() {
    let session = model().session().unwrap();
    let prompt = "The fox ran. ".repeat(15);
    let generation = session.generate(prompt.clone(), greedy(10)).unwrap();
    generation.cancel();
    assert_eq!(generation.next().unwrap(), None);
    generation.join();
    assert_eq!(session.text().unwrap(), prompt);
    assert_eq!(text(&session, "", 10), text(&model().session().unwrap(), &prompt, 10));
}

#[test]
fn a_session_that_generates_refuses_other_work() {
    let session = model().session().unwrap();
    let generation = session.generate(PROMPT.into(), greedy(200)).unwrap();
    assert_eq!(session.generate(PROMPT.into(), greedy(1)).err(), Some(OpenElmError::Busy));
    assert_eq!(session.text(), Err(OpenElmError::Busy));
    assert_eq!(session.fork().err(), Some(OpenElmError::Busy));
    generation.cancel();
    assert_eq!(session.truncate(2), Ok(()));
    assert_eq!(session.tokens().unwrap().len(), 2);
}

#[test]
fn short_calls_of_several_threads_wait_for_each_other() {
    let session = model().session().unwrap();
    let first = text(&session, PROMPT, 20);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let session = session.clone();
            std::thread::spawn(move || {
                let forks: Vec<_> = (0..50).map(|_| session.fork().unwrap()).collect();
                forks[49].text().unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), PROMPT.to_owned() + &first);
    }
}

#[test]
fn a_paused_generation_computes_no_further() {
    let session = model().session().unwrap();
    let generation = session.generate(PROMPT.into(), greedy(60)).unwrap();
    let mut read = pieces(&generation, 1);
    generation.pause();
    while generation.is_ready_within(Duration::from_millis(100)) {
        read.extend(generation.next().unwrap());
        assert!(read.len() < 20, "it goes on");
    }
    generation.resume();
    read.extend(pieces(&generation, usize::MAX));
    assert_eq!(read.into_iter().map(|piece| piece.text).collect::<String>(), expected(60).0);
    // One that is paused can be cancelled.
    let generation = session.generate(String::new(), greedy(60)).unwrap();
    generation.pause();
    generation.cancel();
    generation.join();
    assert!(session.text().is_ok());
}

#[test]
fn memory_that_was_given_back_returns_when_it_is_used() {
    let model = model();
    let session = model.session().unwrap();
    let first = text(&session, PROMPT, 20);
    model.release_memory();
    let fork = session.fork().unwrap();
    session.drop_cache().unwrap();
    let (whole, _) = expected(40);
    assert_eq!(first.clone() + &text(&session, "", 20), whole);
    assert_eq!(first + &text(&fork, "", 20), whole);
    // One that is at work keeps what it needs.
    let generation = session.generate(String::new(), greedy(20)).unwrap();
    model.release_memory();
    assert_eq!(pieces(&generation, usize::MAX).iter().map(|piece| piece.tokens.len()).sum::<usize>(), 20);
}

#[test]
fn an_adapter_stays_with_its_session() {
    let golden =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name).display().to_string();
    let tokenizer = Some(golden("tokenizers/bpe_bytes.model"));
    let options = LoadOptions { tokenizer, ..LoadOptions::default() };
    let model = Model::open(golden("tiny/hf"), options).unwrap();
    let tokens = |session: &Session| {
        let options = GenerationOptions { ignore_end: true, ..greedy(12) };
        pieces(&session.generate_from_tokens(vec![1, 7, 40], options).unwrap(), usize::MAX);
        session.tokens().unwrap()
    };
    let adapted = model.session_with(golden("lora/basic")).unwrap();
    let fork = adapted.fork().unwrap();
    let with = tokens(&adapted);
    assert_eq!(with.len(), 15);
    assert_ne!(with, tokens(&model.session().unwrap()));
    model.release_memory();
    assert_eq!(tokens(&fork), with);
    let Err(OpenElmError::File(sentence)) = model.session_with("no/adapter".into()) else { panic!("it opened") };
    assert!(sentence.contains("no/adapter"), "{sentence}");
}

#[test]
fn a_conversation_is_read_by_the_template_that_comes_with_the_model() {
    let template = "{% for m in messages %}The {{ m.role }} says: {{ m.content }}\n{% endfor %}The end";
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.model"] {
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller");
        std::fs::copy(std::path::Path::new(from).join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let open = |options| Model::open(folder.path().display().to_string(), options).unwrap();
    let own = open(LoadOptions::default());
    let messages = || vec![Message { role: "user".into(), content: "Tell me of the fox.".into() }];
    let session = own.session().unwrap();
    assert!(!pieces(&session.chat(messages(), greedy(2)).unwrap(), 10).is_empty());
    let text = session.text().unwrap();
    assert!(text.starts_with("The user says: Tell me of the fox.\nThe end"), "{text}");
    // One that cannot be followed is spoken of when somebody talks, and not before.
    std::fs::write(folder.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let damaged = open(LoadOptions::default()).session().unwrap();
    let Err(OpenElmError::File(sentence)) = damaged.chat(messages(), greedy(1)) else { panic!("it was followed") };
    assert!(sentence.contains(&folder.path().display().to_string()), "{sentence}");
    assert!(!self::text(&damaged, "The fox", 3).is_empty());
}

#[test]
fn a_conversation_is_read_as_its_template_writes_it_and_goes_on() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant: ' if add_generation_prompt }}";
    let options = LoadOptions { chat_template: Some(template.into()), ..LoadOptions::default() };
    let model = Model::open(STORYTELLER.into(), options).unwrap();
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let answer = |session: &Session, messages: Vec<Message>| {
        let generation = session.chat(messages, greedy(8)).unwrap();
        pieces(&generation, usize::MAX).into_iter().map(|piece| piece.text).collect::<String>()
    };
    let session = model.session().unwrap();
    let first = answer(&session, vec![message("user", "Hi")]);
    assert_eq!(first, text(&model.session().unwrap(), "user: Hi\nassistant: ", 8));
    let turns = vec![message("user", "Hi"), message("assistant", &first), message("user", "Bye")];
    assert_eq!(answer(&session, turns.clone()), answer(&model.session().unwrap(), turns));
    let Err(OpenElmError::Input(sentence)) =
        self::model().session().unwrap().chat(vec![message("tool", "42")], greedy(1))
    else {
        panic!("it began")
    };
    assert!(sentence.contains("tool"), "{sentence}");
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let open = |path: &str, options| match Model::open(path.into(), options) {
        Ok(_) => panic!("{path} opened"),
        Err(error) => error,
    };
    let missing = open("no/such/model", LoadOptions::default());
    assert!(matches!(&missing, OpenElmError::File(sentence) if sentence.contains("no/such/model")), "{missing}");
    let needed = footprint(STORYTELLER.into(), LoadOptions::default()).unwrap();
    assert_eq!(needed.total, needed.weights + needed.cache + needed.buffers);
    let enough = LoadOptions { memory: Some(needed.total), ..LoadOptions::default() };
    let little = LoadOptions { memory: Some(needed.total - 1), ..LoadOptions::default() };
    assert!(Model::open(STORYTELLER.into(), enough).is_ok());
    assert!(matches!(open(STORYTELLER, little), OpenElmError::Memory(sentence) if sentence.contains("available")));

    let session = model().session().unwrap();
    let hot = GenerationOptions { temperature: f32::NAN, ..GenerationOptions::default() };
    let Err(OpenElmError::Input(sentence)) = session.generate(PROMPT.into(), hot) else { panic!("it began") };
    assert!(sentence.contains("temperature"), "{sentence}");
    let generation = session.generate("word ".repeat(1000), greedy(1)).unwrap();
    let Err(OpenElmError::Input(sentence)) = generation.next() else { panic!("it fits") };
    assert!(sentence.contains("256"), "{sentence}");
    // Once.
    assert_eq!(generation.next(), Ok(None));
    assert!(session.tokens().unwrap().is_empty());
}

#[test]
fn a_model_that_was_removed_runs_on_and_is_missed_when_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.model"] {
        std::fs::copy(Path::new(STORYTELLER).join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().display().to_string();
    let model = Model::open(path.clone(), LoadOptions::default()).unwrap();
    folder.close().unwrap();
    let session = model.session().unwrap();
    assert_eq!(text(&session, PROMPT, 20), expected(20).0);
    model.release_memory();
    let Err(OpenElmError::File(sentence)) = session.generate(String::new(), greedy(1)) else { panic!("it ran") };
    assert!(sentence.contains(&path), "{sentence}");
    assert!(model.session().is_err());
}

#[test]
fn a_panic_becomes_an_error() {
    let error = guard(|| -> Result<(), OpenElmError> { panic!("two and two are five") }).unwrap_err();
    assert!(matches!(&error, OpenElmError::Defect(sentence) if sentence.contains("two and two")), "{error}");
}
