//! Chat templates in Jinja: a template writes whole conversations, and here it is found out which of the ids are answers.

use openelm_model::{ChatTemplate, Message, Tokenizer};

use super::named::{Part, as_conversation};
use crate::tune::example::{Role, Text};

/// The ids of `text` as `template` writes it, and who said each. An answer is what the template puts behind the words that ask for
/// it, up to the last control token before somebody else speaks.
///
/// # Errors
/// In words, if the template refuses the conversation, or writes an answer another way once it was given.
pub(super) fn encode(template: &ChatTemplate, text: &Text, tokenizer: &Tokenizer) -> Result<Vec<(u32, Part)>, String> {
    let messages: Vec<Message> =
        as_conversation(text).into_iter().map(|message| Message::new(message.role.name(), message.content)).collect();
    let ids =
        |count: usize, asks: bool| template.encode(tokenizer, &messages[..count], asks).map_err(|e| e.to_string());
    let whole = ids(messages.len(), false)?;
    let mut encoded: Vec<(u32, Part)> = whole.iter().map(|&id| (id, Part::Given)).collect();
    let answers = messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant.name());
    for (index, _) in answers {
        let (before, asked, said) = (ids(index, false)?, ids(index, true)?, ids(index + 1, false)?);
        let written = |begin: &[u32]| begin.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        let (header, start, end) = (written(&before), written(&asked), written(&said));
        // The last token of what asks may take in the first character of the answer.
        if start + 1 < asked.len() || end + 1 < said.len() || end <= start {
            return Err(format!(
                "the chat template writes message {} of the conversation another way when it asks for it, or when more \
                 follows: its answer cannot be told from the rest",
                index + 1
            ));
        }
        let is_control = |&id: &u32| tokenizer.control_spelling(id).is_some();
        let last = whole[start..end].iter().rposition(is_control).map_or(end, |last| start + last + 1);
        let parts = [(header.min(start)..start, Part::Header), (start..last, Part::Answer), (last..end, Part::Behind)];
        for (range, part) in parts {
            encoded[range].iter_mut().for_each(|(_, known)| *known = part);
        }
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use openelm_testing::golden;

    use super::super::named::{self, TemplateName};
    use super::*;
    use crate::tune::example::Message as Said;

    const ZEPHYR: &str = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ eos_token ~ '\n' }}{% endfor %}\
                          {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

    fn encoded(source: &str, turns: &[(Role, &str)]) -> Result<Vec<(u32, Part)>, String> {
        let template = ChatTemplate::from_source(source, "<s>", "</s>").unwrap();
        encode(&template, &conversation(turns), &tokenizer())
    }

    fn conversation(turns: &[(Role, &str)]) -> Text {
        Text::Conversation(turns.iter().map(|&(role, content)| Said::new(role, content)).collect())
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::open(&golden("tokenizer_small/tokenizer.model")).unwrap()
    }

    const TURNS: [(Role, &str); 5] = [
        (Role::System, "Be brief."),
        (Role::User, "Hi."),
        (Role::Assistant, "Ho. </s> is not the end"),
        (Role::User, "So?"),
        (Role::Assistant, "\nNo."),
    ];

    #[test]
    fn a_template_in_jinja_teaches_what_the_same_one_built_in_does() {
        let pieces = TemplateName::OpenelmInstruct.pieces(&conversation(&TURNS)).unwrap();
        assert_eq!(encoded(ZEPHYR, &TURNS).unwrap(), named::encode(&pieces, &tokenizer()));
    }

    #[test]
    fn what_cannot_be_taught_is_said() {
        let refused = "{{ raise_exception('no system turns here') }}";
        assert!(encoded(refused, &TURNS).unwrap_err().contains("no system turns here"));
        // Only the last answer is written out.
        let forgetful = "{% for m in messages %}{{ m.role }}: {% if m.role != 'assistant' or loop.last %}{{ m.content }}\
                         {% endif %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
        assert!(encoded(forgetful, &TURNS).unwrap_err().contains("message 3"));
        let other = ZEPHYR.replace("{{ '<|assistant|>\n' }}", "<|model|>");
        assert!(encoded(&other, &TURNS).unwrap_err().contains("another way"));
    }
}
