//! Conversations with scripts: a JSON object a line in, one a line out.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Result, bail};
use openelm_model::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conversation::{Answer, Conversation};
use crate::commands::sampling::name;

/// A line of input: the next turn, or a whole conversation in place of the one before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Turn { content: String },
    Conversation { messages: Vec<Message> },
}

pub fn run(mut conversation: Conversation) -> Result<()> {
    let mut out = stdout().lock();
    let mut refused = 0;
    for line in stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answered = match answer(&mut conversation, &line) {
            Ok(answered) => answered,
            Err(e) => {
                refused += 1;
                json!({ "error": format!("{e:#}") })
            }
        };
        writeln!(out, "{answered}")?;
        out.flush()?;
    }
    if refused > 0 {
        bail!("{refused} lines had no answer; their errors are in the output");
    }
    Ok(())
}

fn answer(conversation: &mut Conversation, line: &str) -> Result<Value> {
    let before = conversation.messages.clone();
    match serde_json::from_str(line) {
        Ok(Request::Turn { content }) => conversation.messages.push(Message::user(content)),
        Ok(Request::Conversation { messages }) => conversation.messages = messages,
        Err(_) => {
            bail!("expected {{\"content\": …}} or {{\"messages\": [{{\"role\": …, \"content\": …}}, …]}} on a line")
        }
    }
    let answered = conversation.answer(&mut |_| Ok(()), &|| false);
    if answered.is_err() {
        conversation.messages = before;
    }
    let Answer { text, finish, prompt_tokens, reused_tokens, tokens } = answered?;
    Ok(json!({
        "content": text,
        "finish": finish.map(name),
        "prompt_tokens": prompt_tokens,
        "reused_tokens": reused_tokens,
        "tokens": tokens,
    }))
}
