//! What was said, and what the model has read of it.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use openelm_formats::atomic;
use openelm_model::{ChatTemplate, Finish, Generation, GenerationOptions, Message, Session, Tokenizer};
use serde_json::json;

use crate::input::read_file;

pub struct Conversation {
    session: Session,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    options: GenerationOptions,
    pub messages: Vec<Message>,
}

/// How an answer came about.
pub struct Answer {
    pub text: String,
    /// `None` if it was interrupted.
    pub finish: Option<Finish>,
    /// Tokens of the conversation that it answers, and how many of them had been read before.
    pub prompt_tokens: usize,
    pub reused_tokens: usize,
    pub tokens: usize,
}

/// Tokens that are read before the next look at whether somebody interrupts.
const READ_AT_ONCE: usize = 128;

impl Conversation {
    pub fn new(
        session: Session,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        options: GenerationOptions,
        messages: Vec<Message>,
    ) -> Self {
        Self { session, tokenizer, template, options, messages }
    }

    /// Another answer than the last one to the same question wants another seed.
    pub fn draw_anew(&mut self) {
        self.options.sampling.seed = self.options.sampling.seed.wrapping_add(1);
    }

    /// Answers the last message, and puts the answer behind it. Only what is new is read: what the session holds of the
    /// conversation stays. `show` is given the text as it comes; `interrupted` is asked in between.
    ///
    /// # Errors
    /// If the template refuses the conversation, the context has no room for it, or the model fails; nothing is added then.
    pub fn answer(
        &mut self,
        show: &mut dyn FnMut(&str) -> Result<()>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answer> {
        let ids = self.template.encode(&self.tokenizer, &self.messages, true)?;
        let (count, limit) = (ids.len(), self.session.limit());
        ensure!(
            count < limit,
            "the context is full: the conversation has {count} tokens and the context {limit}; take turns back, begin anew or raise --context"
        );
        let shared = self.session.tokens().iter().zip(&ids).take_while(|(a, b)| a == b).count();
        self.session.truncate(shared);
        let mut answer =
            Answer { text: String::new(), finish: None, prompt_tokens: count, reused_tokens: shared, tokens: 0 };
        for part in ids[shared..].chunks(READ_AT_ONCE) {
            if interrupted() {
                return Ok(answer);
            }
            self.session.append(part)?;
        }
        let mut generation = Generation::new(&mut self.session, &self.tokenizer, &[], self.options.clone())?;
        while !interrupted() {
            let Some(piece) = generation.next().transpose()? else {
                answer.finish = generation.finish();
                break;
            };
            answer.tokens += piece.tokens.len();
            answer.text += &piece.text;
            show(&piece.text)?;
        }
        if answer.tokens > 0 || answer.finish.is_some() {
            self.messages.push(Message::assistant(answer.text.clone()));
        }
        Ok(answer)
    }

    /// Takes messages back from the end up to and with the last one of `role`; gives that.
    pub fn take_back(&mut self, role: &str) -> Option<Message> {
        let place = self.messages.iter().rposition(|message| message.role == role)?;
        self.messages.drain(place..).next()
    }

    /// Forgets all but what the model was told at the beginning.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == "system");
    }
}

/// Puts what the model is told at the beginning in place of what it was told; nothing in place of it if `text` is empty.
pub fn set_system(messages: &mut Vec<Message>, text: &str) {
    messages.retain(|message| message.role != "system");
    if !text.is_empty() {
        messages.insert(0, Message::system(text));
    }
}

/// Reads what [`save`] wrote.
pub fn load(file: &Path) -> Result<Vec<Message>> {
    let value: serde_json::Value =
        serde_json::from_str(&read_file(file)?).with_context(|| format!("{}: not JSON", file.display()))?;
    serde_json::from_value(value["messages"].clone())
        .with_context(|| format!("{}: expected {{\"messages\": [{{\"role\": …, \"content\": …}}, …]}}", file.display()))
}

/// Writes a conversation as one JSON object.
pub fn save(messages: &[Message], file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "messages": messages }))?;
    atomic::write_file(file, |out| writeln!(out, "{text}")).with_context(|| file.display().to_string())
}
