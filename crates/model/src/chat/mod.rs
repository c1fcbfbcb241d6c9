//! Conversations, and the text as which a model was taught to read them.

#[cfg(feature = "jinja")]
mod jinja;
#[cfg(feature = "jinja")]
mod json;

use serde::{Deserialize, Serialize};

#[cfg(feature = "jinja")]
use self::jinja::Jinja;
use crate::tokenizer::Tokenizer;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; templates may know others.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// What `role` says.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// What the model is told before the conversation begins.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What a person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model says.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// A conversation that has no text, or a template that makes none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// Longer than templates are.
    #[error("the chat template has {bytes} bytes; at most {MAX_TEMPLATE_BYTES} are possible")]
    TooLong {
        /// Bytes of its source.
        bytes: usize,
    },
    /// It is no template, or fails while it is at work.
    #[error("the chat template fails{}: {reason}", line.map_or(String::new(), |line| format!(" in line {line}")))]
    Template {
        /// Where, from 1.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// It does not end, or makes more than any conversation needs.
    #[error("the chat template was stopped: it takes more steps or memory than the conversation can need")]
    Endless,
    /// The template itself refuses the conversation.
    #[error("the chat template refuses the conversation: {reason}")]
    Raised {
        /// Its own words.
        reason: String,
    },
    /// A template in Jinja, in a build that reads none.
    #[error("this build has no feature `jinja`, which reads chat templates")]
    NoJinja,
    /// A speaker that the template does not know.
    #[error("message {number} is by {role:?}; this chat template knows system, user and assistant")]
    Role {
        /// Which message, from 1.
        number: usize,
        /// Its role.
        role: String,
    },
    /// Contents that cannot be told from what the template writes.
    #[error("the conversation holds all of Unicode's noncharacters U+FDD0 to U+FDEF; leave one out")]
    Noncharacters,
}

/// The longest templates in the field have some tens of thousands of bytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 18;

/// How a model was taught to read conversations.
///
/// ```
/// use openelm_model::{ChatTemplate, Message};
///
/// let template = ChatTemplate::openelm_instruct();
/// let text = template.render(&[Message::user("Who are you?")], true)?;
/// assert_eq!(text, "<s><|system|>\n</s>\n<|user|>\nWho are you?</s>\n<|assistant|>\n");
/// # Ok::<(), openelm_model::ChatError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate(Kind);

#[derive(Debug, Clone)]
enum Kind {
    OpenElmInstruct,
    #[cfg(feature = "jinja")]
    Jinja(Jinja),
}

impl ChatTemplate {
    /// A template in Jinja, as models bring it along, with the texts of the tokens that begin and end a text (empty if there is
    /// none). It is bounded in time and memory, and reaches neither files nor anything else but the conversation and the date.
    ///
    /// # Errors
    /// If it is no template, or longer than any, or the feature `jinja` is not built in.
    #[cfg(feature = "jinja")]
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        Ok(Self(Kind::Jinja(Jinja::new(source, bos, eos)?)))
    }

    /// Refuses a template in Jinja: the feature `jinja` is not built in.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "jinja"))]
    pub fn from_source(_source: &str, _bos: &str, _eos: &str) -> Result<Self, ChatError> {
        Err(ChatError::NoJinja)
    }

    /// The same for the control tokens of `tokenizer`.
    ///
    /// # Errors
    /// As there.
    pub fn from_source_for(source: &str, tokenizer: &Tokenizer) -> Result<Self, ChatError> {
        let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.control_spelling(id)).unwrap_or_default();
        Self::from_source(source, spelling(tokenizer.bos_id()), spelling(tokenizer.eos_id()))
    }

    /// The template by which Apple's instruct models were tuned: Zephyr's, as the alignment handbook has it by default, behind the
    /// token that begins a text. An empty system turn stands where there is none.
    pub fn openelm_instruct() -> Self {
        Self(Kind::OpenElmInstruct)
    }

    /// The text of a conversation; with what begins the next answer, if `add_generation_prompt`.
    ///
    /// # Errors
    /// If the template fails, refuses the conversation, or does not end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        match &self.0 {
            Kind::OpenElmInstruct => openelm_instruct(messages, add_generation_prompt),
            #[cfg(feature = "jinja")]
            Kind::Jinja(jinja) => jinja.render(messages, add_generation_prompt),
        }
    }

    /// The ids of a conversation; with those that begin the next answer, if `add_generation_prompt`. What the template writes of
    /// control tokens is those tokens; what a message spells like one is plain text, and ends no turn. BOS comes first if prompts
    /// of this tokenizer begin with it, whether the template writes it or not.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ChatError> {
        let marked = Marked::new(tokenizer, messages)?;
        let text = self.render(marked.messages.as_deref().unwrap_or(messages), add_generation_prompt)?;
        let mut ids = tokenizer.encode_with_control(&text, marked.mark);
        if let Some(bos) = tokenizer.bos_id().filter(|bos| tokenizer.adds_bos() && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

/// Zephyr's template: `<|role|>`, the content, the end of a text.
fn openelm_instruct(messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
    let empty = Message::system("");
    let has_system = messages.first().is_some_and(|message| message.role == "system");
    let mut text = "<s>".to_owned();
    for (i, message) in (!has_system).then_some(&empty).into_iter().chain(messages).enumerate() {
        let Message { role, content } = message;
        if !["system", "user", "assistant"].contains(&role.as_str()) {
            return Err(ChatError::Role { number: i + usize::from(has_system), role: role.clone() });
        }
        text += &format!("<|{role}|>\n{content}</s>\n");
    }
    text += if add_generation_prompt { "<|assistant|>\n" } else { "" };
    Ok(text)
}

/// Messages in which a mark stands within whatever is spelt like a control token.
struct Marked {
    /// `None` if there is no such spelling.
    messages: Option<Vec<Message>>,
    mark: Option<char>,
}

impl Marked {
    fn new(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Self, ChatError> {
        let spells_control = |text: &str| tokenizer.control_spellings().any(|spelling| text.contains(spelling));
        if !messages.iter().any(|message| spells_control(&message.content) || spells_control(&message.role)) {
            return Ok(Self { messages: None, mark: None });
        }
        let is_free = |mark: &char| !messages.iter().any(|message| message.content.contains(*mark));
        let mark = ('\u{fdd0}'..='\u{fdef}').find(is_free).ok_or(ChatError::Noncharacters)?;
        let marked = |text: &str| {
            let mut text = text.to_owned();
            for spelling in tokenizer.control_spellings() {
                let first = spelling.chars().next().map_or(0, char::len_utf8);
                // Behind each first character, so that none is left: what overlaps is cut apart one after the other.
                while let Some(at) = text.find(spelling) {
                    text.insert(at + first, mark);
                }
            }
            text
        };
        let messages =
            messages.iter().map(|message| Message::new(marked(&message.role), marked(&message.content))).collect();
        Ok(Self { messages: Some(messages), mark: Some(mark) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openelm_instruct_is_zephyrs_template_behind_bos() {
        let template = ChatTemplate::openelm_instruct();
        let turns =
            [Message::system("Be brief."), Message::user("Hi"), Message::assistant("Hello"), Message::user("Bye")];
        assert_eq!(
            template.render(&turns, true),
            Ok("<s><|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n\
                <|assistant|>\n"
                .to_owned())
        );
        let turns = [Message::user("Hi"), Message::assistant("Hello")];
        assert_eq!(
            template.render(&turns, false),
            Ok("<s><|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n".to_owned())
        );
        let turns = [Message::user("Hi"), Message::new("tool", "42")];
        assert_eq!(template.render(&turns, true), Err(ChatError::Role { number: 2, role: "tool".to_owned() }));
    }
}
