//! Templates by name: an example becomes pieces, of which it is known who said them.

use openelm_model::Tokenizer;

use crate::tune::example::{Message, Role, Text};

/// A template by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateName {
    /// OpenELM-Instruct's: `<|user|>` and the like as plain text, `</s>` behind each turn, an empty system turn where there is none.
    OpenelmInstruct,
    /// Stanford Alpaca's `### Instruction:`, one turn.
    Alpaca,
    /// That of CoreNet's commonsense data, with its sixteen spaces, one turn.
    CoreNetCommonsense,
    /// Prompt and answer as they are; messages below each other.
    Plain,
}

/// Who said a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tune) enum Part {
    /// What the model is given.
    Given,
    /// What announces an answer.
    Header,
    /// An answer, with the token that ends it.
    Answer,
    /// What follows an answer before somebody else speaks.
    Behind,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String, Part),
    /// The token that begins a text, where there is one and prompts begin with it.
    Begin,
    /// The token that ends a text or a turn.
    End(Part),
}

/// The blanks that begin each line of CoreNet's template.
const BLANKS: &str = "                ";

impl TemplateName {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::OpenelmInstruct, Self::Alpaca, Self::CoreNetCommonsense, Self::Plain];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::OpenelmInstruct => "openelm-instruct",
            Self::Alpaca => "alpaca",
            Self::CoreNetCommonsense => "corenet-commonsense",
            Self::Plain => "plain",
        }
    }

    /// The pieces of `text`.
    ///
    /// # Errors
    /// In words, if the template has no place for it.
    pub(super) fn pieces(self, text: &Text) -> Result<Vec<Piece>, String> {
        match (self, text) {
            (Self::OpenelmInstruct, text) => Ok(turns(&as_conversation(text))),
            (Self::Plain, Text::Completion { prompt, completion }) => Ok(one_turn(prompt.clone(), completion)),
            (Self::Plain, text) => {
                let messages = as_conversation(text);
                let [before @ .., last] = &messages[..] else { return Err("there is no message".to_owned()) };
                let given: String = before.iter().map(|message| format!("{}\n", message.content)).collect();
                Ok(one_turn(given, &last.content))
            }
            (Self::Alpaca, text) => {
                let (instruction, input, output) = as_instruction(text)?;
                Ok(one_turn(alpaca(instruction, input), output))
            }
            (Self::CoreNetCommonsense, text) => {
                let (instruction, input, output) = as_instruction(text)?;
                Ok(one_turn(commonsense(instruction, input), output))
            }
        }
    }

    /// The ids of a prompt that asks for an answer to `message`.
    ///
    /// # Errors
    /// As [`TemplateName::pieces`].
    pub(super) fn prompt(self, message: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
        let text = match self {
            Self::Plain => Text::Completion { prompt: message.to_owned(), completion: String::new() },
            _ => Text::Conversation(vec![Message::new(Role::User, message), Message::new(Role::Assistant, "")]),
        };
        let given = |piece: &Piece| {
            matches!(piece, Piece::Begin | Piece::Text(_, Part::Given | Part::Header) | Piece::End(Part::Given))
        };
        let pieces: Vec<Piece> = self.pieces(&text)?.into_iter().take_while(given).collect();
        Ok(encode(&pieces, tokenizer).into_iter().map(|(id, _)| id).collect())
    }
}

fn one_turn(prompt: String, answer: &str) -> Vec<Piece> {
    let answer = Piece::Text(answer.to_owned(), Part::Answer);
    vec![Piece::Begin, Piece::Text(prompt, Part::Given), answer, Piece::End(Part::Answer)]
}

/// OpenELM-Instruct was tuned with the template of the Alignment Handbook, whose markers are plain text.
fn turns(messages: &[Message]) -> Vec<Piece> {
    let system = Message::new(Role::System, "");
    let first = messages.first().filter(|first| first.role != Role::System).map(|_| &system);
    let mut pieces = vec![Piece::Begin];
    for Message { role, content } in first.into_iter().chain(messages) {
        let header = format!("<|{}|>\n", role.name());
        let newline = |part| Piece::Text("\n".to_owned(), part);
        match role {
            Role::Assistant => pieces.extend([
                Piece::Text(header, Part::Header),
                Piece::Text(content.clone(), Part::Answer),
                Piece::End(Part::Answer),
                newline(Part::Behind),
            ]),
            _ => pieces.extend([
                Piece::Text(format!("{header}{content}"), Part::Given),
                Piece::End(Part::Given),
                newline(Part::Given),
            ]),
        }
    }
    pieces
}

pub(super) fn as_conversation(text: &Text) -> Vec<Message> {
    let turn = |asked: String, said: &str| vec![Message::new(Role::User, asked), Message::new(Role::Assistant, said)];
    match text {
        Text::Conversation(messages) => messages.clone(),
        Text::Instruction { instruction, input, output } if input.is_empty() => turn(instruction.clone(), output),
        Text::Instruction { instruction, input, output } => turn(format!("{instruction}\n\n{input}"), output),
        Text::Completion { prompt, completion } => turn(prompt.clone(), completion),
    }
}

fn as_instruction(text: &Text) -> Result<(&str, &str, &str), String> {
    match text {
        Text::Instruction { instruction, input, output } => Ok((instruction, input, output)),
        Text::Completion { prompt, completion } => Ok((prompt, "", completion)),
        Text::Conversation(messages) => match &messages[..] {
            [asked, said] if asked.role == Role::User => Ok((&asked.content, "", &said.content)),
            _ => Err(
                "this template has one question and one answer; data.template = \"model\" or \"openelm-instruct\" has several turns"
                    .to_owned(),
            ),
        },
    }
}

fn alpaca(instruction: &str, input: &str) -> String {
    match input {
        "" => format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        ),
        input => format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a response \
             that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n\
             ### Response:\n"
        ),
    }
}

/// To the byte what CoreNet's `generate_prompt` gives: one blank more behind the first line where there is no input.
fn commonsense(instruction: &str, input: &str) -> String {
    let task = match input {
        "" => {
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n"
        }
        _ => {
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a response \
             that appropriately completes the request. \n\n"
        }
    };
    let heading = |name: &str| format!("{BLANKS}### {name}:\n{BLANKS}");
    let input = if input.is_empty() { String::new() } else { format!("{}{input}\n{BLANKS}\n", heading("Input")) };
    format!("{task}{}{instruction}\n{BLANKS}\n{input}{}", heading("Instruction"), heading("Response"))
}

/// The ids of `pieces`, and who said each. Texts between the tokens that begin and end are taken apart as one; a token that
/// stands in two pieces belongs to the later one.
pub(super) fn encode(pieces: &[Piece], tokenizer: &Tokenizer) -> Vec<(u32, Part)> {
    let mut encoded = Vec::new();
    for section in pieces.chunk_by(|a, b| matches!((a, b), (Piece::Text(..), Piece::Text(..)))) {
        match &section[0] {
            Piece::Begin => {
                encoded.extend(tokenizer.bos_id().filter(|_| tokenizer.adds_bos()).map(|id| (id, Part::Given)));
            }
            Piece::End(part) => encoded.extend(tokenizer.eos_id().map(|id| (id, *part))),
            Piece::Text(..) => encode_texts(section, tokenizer, &mut encoded),
        }
    }
    encoded
}

fn encode_texts(section: &[Piece], tokenizer: &Tokenizer, encoded: &mut Vec<(u32, Part)>) {
    let mut texts: Vec<(&str, Part)> = Vec::new();
    for piece in section {
        if let Piece::Text(text, part) = piece {
            texts.push((text, *part));
        }
    }
    let whole: String = texts.iter().map(|(text, _)| *text).collect();
    let ids = tokenizer.encode(&whole);
    let (mut end, mut first) = (0, 0);
    for (i, (text, part)) in texts.iter().enumerate() {
        end += text.len();
        let behind = match texts.get(i + 1) {
            None => ids.len(),
            Some((_, next)) if next == part => continue,
            Some(_) => {
                let begin = tokenizer.encode(&whole[..end]);
                begin.iter().zip(&ids).take_while(|(a, b)| a == b).count().max(first)
            }
        };
        encoded.extend(ids[first..behind].iter().map(|&id| (id, *part)));
        first = behind;
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::{golden, json, shared};

    use super::*;

    fn rendered(template: TemplateName, text: &Text) -> String {
        let shown = |piece: Piece| match piece {
            Piece::Text(text, _) => text,
            Piece::Begin => "<s>".to_owned(),
            Piece::End(_) => "</s>".to_owned(),
        };
        template.pieces(text).unwrap().into_iter().map(shown).collect()
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::open(&golden("tokenizer_small/tokenizer.model")).unwrap()
    }

    fn said(role: Role, content: &str) -> Message {
        Message::new(role, content)
    }

    #[test]
    fn a_conversation_is_that_of_openelm_instruct() {
        let turns = [
            said(Role::User, "Hi."),
            said(Role::Assistant, "Ho."),
            said(Role::User, "So?"),
            said(Role::Assistant, "No."),
        ];
        let text = Text::Conversation(turns.to_vec());
        assert_eq!(
            rendered(TemplateName::OpenelmInstruct, &text),
            "<s><|system|>\n</s>\n<|user|>\nHi.</s>\n<|assistant|>\nHo.</s>\n<|user|>\nSo?</s>\n<|assistant|>\nNo.</s>\n"
        );
        let tokenizer = tokenizer();
        let encoded = encode(&TemplateName::OpenelmInstruct.pieces(&text).unwrap(), &tokenizer);
        let answers: Vec<u32> = encoded.iter().filter(|(_, part)| *part == Part::Answer).map(|(id, _)| *id).collect();
        let ends = answers.iter().filter(|&&id| Some(id) == tokenizer.eos_id()).count();
        assert_eq!(ends, 2, "each answer ends");
        assert_eq!(tokenizer.decode(&answers).replace(' ', ""), "Ho.No.");
        // What is asked for is what was learnt from.
        let one = Text::Conversation(vec![said(Role::User, "Hi."), said(Role::Assistant, "Ho.")]);
        let learnt = encode(&TemplateName::OpenelmInstruct.pieces(&one).unwrap(), &tokenizer);
        let given: Vec<u32> = learnt.iter().take_while(|(_, part)| *part != Part::Answer).map(|(id, _)| *id).collect();
        assert_eq!(TemplateName::OpenelmInstruct.prompt("Hi.", &tokenizer).unwrap(), given);
    }

    #[test]
    fn commonsense_prompts_are_corenets_to_the_byte() {
        let (Some(rows), Some(expected)) =
            (shared("golden/data/commonsense_input.json"), shared("golden/data/commonsense170k.json"))
        else {
            return;
        };
        let (rows, expected) = (json(&rows), json(&expected));
        let field = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let mut compared = 0;
        for (row, expected) in rows.as_array().unwrap().iter().zip(expected["rendered"].as_array().unwrap()) {
            let text = Text::Instruction {
                instruction: field(row, "instruction"),
                input: field(row, "input"),
                output: field(row, "output"),
            };
            let found = rendered(TemplateName::CoreNetCommonsense, &text);
            assert_eq!(found.trim_start_matches("<s>").trim_end_matches("</s>"), expected.as_str().unwrap());
            compared += 1;
        }
        assert!(compared > 3);
    }

    #[test]
    fn ids_are_those_of_the_whole_text_and_none_is_lost() {
        let tokenizer = tokenizer();
        for (prompt, completion) in
            [("Once upon", " a time"), ("a", "bc"), ("", "alone"), ("né", "e"), ("x\n", "\n\ny")]
        {
            let text = Text::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() };
            let encoded = encode(&TemplateName::Plain.pieces(&text).unwrap(), &tokenizer);
            let ids: Vec<u32> = encoded.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, tokenizer.encode_with(&format!("{prompt}{completion}"), true, true));
            assert!(encoded.iter().any(|(_, part)| *part == Part::Answer));
            assert!(encoded.is_sorted_by_key(|(_, part)| *part == Part::Answer), "answers come last");
        }
    }
}
