//! What a row of a file says: a conversation, an instruction, a text to complete, or a pair of answers.
//!
//! ```text
//! messages: [{role, content}, ...]                                also conversations: [{from, value}, ...]
//! instruction, input, output                                      also response in the place of output
//! prompt, completion                                              also response; a prompt may be a list of messages
//! text
//! prompt, chosen, rejected                                        texts or lists of messages
//! chosen, rejected                                                whole conversations: lists, or "\n\nHuman: ...\n\nAssistant: ..."
//! ```

use serde_json::{Map, Value};

use crate::data::Record;

/// Names of fields that a message lists, at most.
const NAMES: usize = 12;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn of(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" | "model" => Some(Self::Assistant),
            _ => None,
        }
    }

    /// As templates call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Something that somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub role: Role,
    pub content: String,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// What each has said, in turn.
    Conversation(Vec<Message>),
    /// A task, what it is about, and what came of it.
    Instruction { instruction: String, input: String, output: String },
    /// A text, and how it goes on.
    Completion { prompt: String, completion: String },
}

/// What is learnt from a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Example {
    /// To be said as it is.
    Supervised(Text),
    /// The better and the worse, which begin alike.
    Pair([Text; 2]),
}

impl Example {
    /// What `record` says.
    ///
    /// # Errors
    /// In words, if it is no example, an answer is empty, or a pair is equal.
    pub fn of(record: &Record) -> Result<Self, String> {
        let fields = &record.fields;
        if fields.contains_key("chosen") || fields.contains_key("rejected") {
            return pair(fields).map(Self::Pair);
        }
        supervised(fields).map(Self::Supervised)
    }
}

fn supervised(fields: &Map<String, Value>) -> Result<Text, String> {
    if let Some(messages) = fields.get("messages").or(fields.get("conversations")) {
        let mut messages = conversation(messages)?;
        if let Some(Value::String(system)) = fields.get("system")
            && !system.is_empty()
        {
            messages.insert(0, Message::new(Role::System, system));
        }
        check_answers(&messages)?;
        return Ok(Text::Conversation(messages));
    }
    if fields.contains_key("instruction") {
        let input = if fields.get("input").is_some_and(|input| !input.is_null()) { text(fields, "input")? } else { "" };
        let output = answer(fields, &["output", "response"])?;
        let instruction = text(fields, "instruction")?.to_owned();
        return Ok(Text::Instruction { instruction, input: input.to_owned(), output: output.to_owned() });
    }
    match fields.get("prompt") {
        Some(prompt @ Value::Array(_)) => {
            let mut messages = conversation(prompt)?;
            let key =
                ["completion", "response"].into_iter().find(|key| fields.contains_key(*key)).unwrap_or("completion");
            messages.extend(answers(fields.get(key).ok_or_else(|| missing(fields, key))?)?);
            check_answers(&messages)?;
            Ok(Text::Conversation(messages))
        }
        Some(_) => {
            let completion = answer(fields, &["completion", "response"])?.to_owned();
            Ok(Text::Completion { prompt: text(fields, "prompt")?.to_owned(), completion })
        }
        None if fields.contains_key("text") => {
            Ok(Text::Completion { prompt: String::new(), completion: answer(fields, &["text"])?.to_owned() })
        }
        None => Err(format!(
            "it is no example: it has {}; expected messages, instruction and output, prompt and completion, text, or prompt, \
             chosen and rejected",
            names(fields)
        )),
    }
}

fn pair(fields: &Map<String, Value>) -> Result<[Text; 2], String> {
    let [chosen, rejected] = ["chosen", "rejected"].map(|key| fields.get(key).ok_or_else(|| missing(fields, key)));
    let (chosen, rejected) = (chosen?, rejected?);
    if chosen == rejected {
        return Err("chosen and rejected are equal: there is nothing to prefer".to_owned());
    }
    let prompt = fields.get("prompt").or(fields.get("messages")).or(fields.get("conversations"));
    let pair = match prompt {
        Some(Value::String(prompt)) if chosen.is_string() && rejected.is_string() => {
            let side =
                |key| Ok(Text::Completion { prompt: prompt.clone(), completion: answer(fields, &[key])?.to_owned() });
            let sides: [Result<_, String>; 2] = [side("chosen"), side("rejected")];
            sides
        }
        prompt => {
            let before = match prompt {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::String(prompt)) => vec![Message::new(Role::User, prompt)],
                Some(prompt) => conversation(prompt)?,
            };
            [chosen, rejected].map(|side| {
                let said = answers(side)?;
                // The answer may come with what was said before.
                let whole = said.first().is_some_and(|first| first.role != Role::Assistant);
                let messages = if whole { said } else { [&before[..], &said].concat() };
                check_answers(&messages)?;
                Ok(Text::Conversation(messages))
            })
        }
    };
    let [chosen, rejected] = pair;
    let (chosen, rejected) = (chosen?, rejected?);
    if chosen == rejected {
        return Err("chosen and rejected are equal: there is nothing to prefer".to_owned());
    }
    Ok([chosen, rejected])
}

/// What stands behind a prompt: an answer as a text, a message or a list of them, or a conversation in Anthropic's notation.
fn answers(value: &Value) -> Result<Vec<Message>, String> {
    match value {
        Value::String(text) if text.starts_with("\n\nHuman:") => Ok(transcript(text)),
        Value::String(text) => Ok(vec![Message::new(Role::Assistant, text)]),
        Value::Object(message) => Ok(vec![self::message(message)?]),
        other => conversation(other),
    }
}

fn conversation(value: &Value) -> Result<Vec<Message>, String> {
    let messages = value.as_array().ok_or("the messages are no list")?;
    messages
        .iter()
        .map(|message| self::message(message.as_object().ok_or("a message is no object with role and content")?))
        .collect()
}

fn message(fields: &Map<String, Value>) -> Result<Message, String> {
    let of = |keys: [&str; 2]| {
        let found = keys.into_iter().find_map(|key| fields.get(key)?.as_str());
        found.ok_or_else(|| format!("a message has no text {}; it has {}", keys.join(" or "), names(fields)))
    };
    let (role, content) = (of(["role", "from"])?, of(["content", "value"])?);
    let role = Role::of(role)
        .ok_or_else(|| format!("a message is by {role:?}; known are system, user (human) and assistant (gpt)"))?;
    Ok(Message::new(role, content))
}

/// A conversation as Anthropic's preference data has it.
fn transcript(text: &str) -> Vec<Message> {
    let (human, assistant) = ("\n\nHuman:", "\n\nAssistant:");
    let mut messages = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let role = if rest.starts_with(assistant) { Role::Assistant } else { Role::User };
        let begin = if role == Role::Assistant { assistant.len() } else { human.len() };
        let behind = &rest[begin..];
        let end = [human, assistant].into_iter().filter_map(|mark| behind.find(mark)).min().unwrap_or(behind.len());
        messages.push(Message::new(role, behind[..end].trim()));
        rest = &behind[end..];
    }
    messages
}

/// The last word is the assistant's, and none of its answers is empty.
fn check_answers(messages: &[Message]) -> Result<(), String> {
    if messages.last().is_none_or(|last| last.role != Role::Assistant) {
        return Err("the conversation does not end with an answer of the assistant".to_owned());
    }
    if messages.iter().any(|message| message.role == Role::Assistant && message.content.trim().is_empty()) {
        return Err("an answer is empty".to_owned());
    }
    if messages.iter().skip(1).any(|message| message.role == Role::System) {
        return Err(
            "a message of the system stands in the middle of the conversation; it belongs at its beginning".to_owned()
        );
    }
    Ok(())
}

/// The first of `keys` that is there, which must be a text that is not empty.
fn answer<'f>(fields: &'f Map<String, Value>, keys: &[&str]) -> Result<&'f str, String> {
    let key = keys.iter().find(|key| fields.contains_key(**key)).ok_or_else(|| missing(fields, &keys.join(" or ")))?;
    let text = text(fields, key)?;
    if text.trim().is_empty() { Err(format!("{key} is empty: there is nothing to learn")) } else { Ok(text) }
}

fn text<'f>(fields: &'f Map<String, Value>, key: &str) -> Result<&'f str, String> {
    let value = fields.get(key).ok_or_else(|| missing(fields, key))?;
    value.as_str().ok_or_else(|| format!("{key} is not a text"))
}

fn missing(fields: &Map<String, Value>, key: &str) -> String {
    format!("it has no {key}; there are {}", names(fields))
}

fn names(fields: &Map<String, Value>) -> String {
    match fields.is_empty() {
        true => "no fields".to_owned(),
        false => fields.keys().take(NAMES).cloned().collect::<Vec<_>>().join(", "),
    }
}
