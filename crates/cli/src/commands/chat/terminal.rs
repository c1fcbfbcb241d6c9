//! A conversation in the terminal.

use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use openelm_model::{Finish, Message};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::conversation::{Conversation, load, save, set_system};
use crate::interrupt::Stop;
use crate::tell;

const HELP: &str = "\
/help          this list
/system TEXT   what the model is told before the conversation; without TEXT, nothing
/again         another answer to the last question
/edit          change the last question and ask it again
/undo          take the last question back, with its answer
/clear         begin anew
/show          the conversation so far
/save FILE     write the conversation as JSON
/load FILE     go on with one that was written
/quit          leave; so does Ctrl-D
A line that ends with \\ goes on in the next one; \"\"\" begins and ends a text of several lines. Ctrl-C stops an answer.";

/// Ctrl-C, by number.
const INTERRUPT: i32 = 2;

pub fn run(conversation: Conversation) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let raised = interrupted.clone();
    let stop = Stop::listen(&[INTERRUPT], move |_| raised.store(true, Ordering::SeqCst), || ())?;
    let mut terminal = Terminal { conversation, editor: DefaultEditor::new()?, interrupted, stop };
    tell("/help lists what can be done besides talking; Ctrl-D leaves");
    while let Some(input) = terminal.read("> ", "")? {
        let done = match input.trim() {
            "" => Ok(()),
            "/quit" | "/exit" => break,
            command if command.starts_with('/') => terminal.command(command),
            _ => terminal.ask(input),
        };
        // An error ends no conversation.
        if let Err(e) = done {
            tell(format!("error: {e:#}"));
        }
        terminal.stop.check()?;
    }
    Ok(())
}

struct Terminal {
    conversation: Conversation,
    editor: DefaultEditor,
    /// Raised by Ctrl-C.
    interrupted: Arc<AtomicBool>,
    stop: Stop,
}

impl Terminal {
    /// A text of one line or several; `None` at the end of input.
    fn read(&mut self, prompt: &str, initial: &str) -> Result<Option<String>> {
        let mut text = String::new();
        let mut quoted = false;
        loop {
            let prompt = if text.is_empty() && !quoted { prompt } else { "… " };
            let initial = if text.is_empty() { initial } else { "" };
            let line = match self.editor.readline_with_initial(prompt, (initial, "")) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    (text, quoted) = (String::new(), false);
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            let quotes = line.matches("\"\"\"").count();
            quoted ^= quotes % 2 == 1;
            text += &line.replace("\"\"\"", "");
            if quoted {
                text.push('\n');
            } else if quotes == 0 && text.ends_with('\\') {
                text.pop();
                text.push('\n');
            } else {
                break;
            }
        }
        self.editor.add_history_entry(&text)?;
        Ok(Some(text))
    }

    fn command(&mut self, command: &str) -> Result<()> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "/help" => tell(HELP),
            "/system" => set_system(&mut self.conversation.messages, rest),
            "/clear" => self.conversation.clear(),
            "/undo" => drop(self.conversation.take_back("user")),
            "/show" => self
                .conversation
                .messages
                .iter()
                .for_each(|Message { role, content }| tell(format!("{role}: {content}"))),
            "/save" | "/load" if rest.is_empty() => tell(format!("{name} wants the name of a file")),
            "/save" => save(&self.conversation.messages, Path::new(rest))?,
            "/load" => self.conversation.messages = load(Path::new(rest))?,
            "/again" => {
                let Some(Message { content, .. }) = self.conversation.take_back("user") else {
                    tell("there is no question yet");
                    return Ok(());
                };
                self.conversation.draw_anew();
                return self.ask(content);
            }
            "/edit" => {
                let question = self.conversation.take_back("user").map_or(String::new(), |message| message.content);
                if let Some(question) =
                    self.read("> ", &question.replace('\n', " "))?.filter(|text| !text.trim().is_empty())
                {
                    return self.ask(question);
                }
            }
            other => tell(format!("{other} is no command; /help lists them")),
        }
        Ok(())
    }

    /// Asks, and shows the answer as it comes.
    fn ask(&mut self, question: String) -> Result<()> {
        self.interrupted.store(false, Ordering::SeqCst);
        self.conversation.messages.push(Message::user(question));
        let asked = self.conversation.messages.len();
        let mut out = stdout().lock();
        let mut show = |text: &str| Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?);
        let (interrupted, stop) = (&self.interrupted, &self.stop);
        let answered = self.conversation.answer(&mut show, &|| interrupted.load(Ordering::SeqCst) || stop.is_raised());
        if self.conversation.messages.len() == asked {
            // Nobody answered: the question is taken back.
            self.conversation.messages.pop();
        }
        let answer = answered?;
        writeln!(out)?;
        match answer.finish {
            None => tell("(stopped)"),
            Some(Finish::MaxTokens) => tell("(as long as --max-tokens allows)"),
            Some(Finish::ContextFull) => {
                tell("(the context is full: /undo or /clear makes room, --context gives more)");
            }
            Some(Finish::EndOfText | Finish::Stop) => (),
        }
        Ok(())
    }
}
