//! Python's literals: data sets such as RACE hold lists of dictionaries as text.

use serde_json::{Map, Number, Value};

/// Deepest nesting that is read.
const DEPTH: usize = 32;

/// The value that `ast.literal_eval(text)` gives: strings, numbers, booleans, `None`, lists, tuples, dictionaries with strings as keys.
///
/// # Errors
/// A few words on what is wrong, and where.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { rest: text, length: text.len() };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.wrong("something stands behind the value")) }
}

struct Reader<'a> {
    rest: &'a str,
    length: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("{what} at byte {}", self.length - self.rest.len())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Whether `symbol` comes next, which is then passed.
    fn take(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(symbol);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err(self.wrong("too deeply nested"));
        }
        if self.take("[") {
            return self.items("]", depth);
        }
        if self.take("(") {
            return self.items(")", depth);
        }
        if self.take("{") {
            return self.entries(depth);
        }
        for (name, value) in [("None", Value::Null), ("True", true.into()), ("False", false.into())] {
            if self.take(name) {
                return Ok(value);
            }
        }
        match self.rest.chars().next() {
            Some('"' | '\'') => Ok(Value::String(self.strings()?)),
            _ => self.number(),
        }
    }

    fn items(&mut self, end: &str, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.value(depth + 1)?);
            if !self.take(",") && !self.rest.trim_start().starts_with(end) {
                return Err(self.wrong("a comma is missing"));
            }
        }
        Ok(Value::Array(items))
    }

    fn entries(&mut self, depth: usize) -> Result<Value, String> {
        let mut entries = Map::new();
        while !self.take("}") {
            let Value::String(key) = self.value(depth + 1)? else { return Err(self.wrong("a key is no string")) };
            if !self.take(":") {
                return Err(self.wrong("a colon is missing"));
            }
            entries.insert(key, self.value(depth + 1)?);
            if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                return Err(self.wrong("a comma is missing"));
            }
        }
        Ok(Value::Object(entries))
    }

    /// Strings that stand side by side are one.
    fn strings(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            self.skip_space();
            match self.rest.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    self.rest = &self.rest[1..];
                    self.string(quote, &mut text)?;
                }
                _ => return Ok(text),
            }
        }
    }

    /// What is left of a string behind its `quote`.
    fn string(&mut self, quote: char, text: &mut String) -> Result<(), String> {
        loop {
            let mut characters = self.rest.chars();
            let character = characters.next().ok_or_else(|| self.wrong("a string does not end"))?;
            self.rest = characters.as_str();
            match character {
                '\\' => text.push_str(&self.escape()?),
                _ if character == quote => return Ok(()),
                _ => text.push(character),
            }
        }
    }

    /// What is meant by the characters behind a backslash.
    fn escape(&mut self) -> Result<String, String> {
        let mut characters = self.rest.chars();
        let character = characters.next().ok_or_else(|| self.wrong("a string does not end"))?;
        self.rest = characters.as_str();
        let plain = match character {
            '\n' => return Ok(String::new()),
            '\\' | '\'' | '"' => character,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            '0'..='7' => {
                let digits = 1 + self.rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let (octal, rest) = self.rest.split_at(digits - 1);
                let code = u32::from_str_radix(&format!("{character}{octal}"), 8).unwrap_or_default();
                self.rest = rest;
                char::from_u32(code).ok_or_else(|| self.wrong("no character"))?
            }
            // Python leaves what it does not know as it stands.
            _ => return Ok(format!("\\{character}")),
        };
        Ok(plain.into())
    }

    fn code(&mut self, digits: usize) -> Result<char, String> {
        let code = self.rest.get(..digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let character = code.and_then(char::from_u32).ok_or_else(|| self.wrong("no character"))?;
        self.rest = &self.rest[digits..];
        Ok(character)
    }

    fn number(&mut self) -> Result<Value, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let whole = digits.parse::<i64>().ok().map(Number::from);
        let number = whole.or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64));
        let number = number.ok_or_else(|| self.wrong("no literal of Python"))?;
        self.rest = rest;
        Ok(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_read_as_python_reads_them() {
        let text = r#"[{'question': "What's \"new\"?", 'options': ('a', 'b\n', '\x41\u00e9\101', 'c' "d"), 'n': -3, 'x': 1.5e1},
            None, True, [], {}, 'odd \d']"#;
        let expected = json!([
            {"question": "What's \"new\"?", "options": ["a", "b\n", "AéA", "cd"], "n": -3, "x": 15.0},
            null, true, [], {}, "odd \\d"
        ]);
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for text in ["", "[1, 2", "{'a' 1}", "{1: 2}", "'open", "f(x)", "[1 2]", "'\\x4'", "1 2", &"[".repeat(100)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
