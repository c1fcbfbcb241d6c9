//! One field of a JSON object, without a look at what the others hold: numbers that JSON has no word for (`NaN`, `1e999`), halves
//! of surrogate pairs and lists in lists of any depth are in the corpora of this world, and none of them spoils the text beside.

use std::borrow::Cow;

/// Names of fields that a message lists, at most.
const NAMES: usize = 12;

/// What an object holds under a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'l> {
    Text(Cow<'l, str>),
    /// `null`, or the `NaN` that some writers put there instead.
    Null,
    /// Something that is no text.
    Other,
    Missing,
}

/// The field `key` of the object in `line`: the one of that name, or with `a.b` the field `b` of the object `a`. Of fields with the
/// same name the last one counts. Half a surrogate pair becomes U+FFFD.
///
/// # Errors
/// If `line` is no object, or breaks off.
pub(super) fn field<'l>(line: &'l str, key: &str) -> Result<Field<'l>, String> {
    let mut scanner = Scanner { line, place: 0 };
    match scanner.peek() {
        Some(b'{') => {}
        Some(b'[') => return Err("not a JSON object but a list; JSONL has one object in each line".to_owned()),
        Some(b'"' | b'0'..=b'9' | b'-') => return Err("not a JSON object".to_owned()),
        _ => return Err("not JSON".to_owned()),
    }
    let wrong = |reason| format!("not JSON: {reason}");
    let found = scanner.object(key).map_err(wrong)?;
    match scanner.peek() {
        None => Ok(found),
        Some(_) => Err(wrong(format!("something stands behind the object, from byte {} on", scanner.place))),
    }
}

/// The fields of the object in `line`, and those of the objects in it as `a.b`: no more than a message has room for.
pub(super) fn names(line: &str) -> Vec<String> {
    let (mut scanner, mut names) = (Scanner { line, place: 0 }, Vec::new());
    // What was found until it breaks off is all there is to tell.
    let _ = scanner.names("", &mut names);
    names.truncate(NAMES);
    names
}

struct Scanner<'l> {
    line: &'l str,
    place: usize,
}

impl<'l> Scanner<'l> {
    /// The next byte that is no white space, which is passed over.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.line.as_bytes()[self.place..];
        self.place += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.line.as_bytes().get(self.place).copied()
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek().ok_or("it breaks off; JSONL has a whole object in each line")?;
        self.place += 1;
        Ok(byte)
    }

    fn expect(&mut self, expected: u8) -> Result<(), String> {
        match self.next()? {
            byte if byte == expected => Ok(()),
            _ => Err(format!("there is no {} at byte {}", char::from(expected), self.place - 1)),
        }
    }

    /// Whether another field follows, behind a field.
    fn goes_on(&mut self) -> Result<bool, String> {
        match self.next()? {
            b',' => Ok(true),
            b'}' => Ok(false),
            _ => Err(format!("there is neither , nor }} at byte {}", self.place - 1)),
        }
    }

    /// Passes over the brace that begins an object; whether it has fields.
    fn enter(&mut self) -> Result<bool, String> {
        self.expect(b'{')?;
        let has_fields = self.peek() != Some(b'}');
        self.place += usize::from(!has_fields);
        Ok(has_fields)
    }

    fn object(&mut self, key: &str) -> Result<Field<'l>, String> {
        let mut found = Field::Missing;
        let mut more = self.enter()?;
        while more {
            let name = self.text()?;
            self.expect(b':')?;
            match key.strip_prefix(&*name) {
                Some("") => found = self.value()?,
                Some(rest) if rest.starts_with('.') && self.peek() == Some(b'{') => {
                    let inner = self.object(&rest[1..])?;
                    if found == Field::Missing {
                        found = inner;
                    }
                }
                _ => self.skip()?,
            }
            more = self.goes_on()?;
        }
        Ok(found)
    }

    fn names(&mut self, outer: &str, names: &mut Vec<String>) -> Result<(), String> {
        let mut more = self.enter()?;
        while more && names.len() < NAMES {
            let name = format!("{outer}{}", self.text()?);
            self.expect(b':')?;
            match self.peek() {
                Some(b'{') if outer.is_empty() => self.names(&format!("{name}."), names)?,
                _ => {
                    self.skip()?;
                    names.push(name);
                }
            }
            more = self.goes_on()?;
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Field<'l>, String> {
        if self.peek() == Some(b'"') {
            return self.text().map(Field::Text);
        }
        let begin = self.place;
        self.skip()?;
        let is_null = matches!(&self.line[begin..self.place], "null" | "NaN");
        Ok(if is_null { Field::Null } else { Field::Other })
    }

    /// Passes over a value: brackets are counted, not entered, so that any depth will do.
    fn skip(&mut self) -> Result<(), String> {
        let mut depth = 0usize;
        loop {
            match self.next()? {
                b'"' => self.skip_text()?,
                b'[' | b'{' => depth += 1,
                b']' | b'}' if depth > 0 => depth -= 1,
                b',' | b':' if depth > 0 => continue,
                b']' | b'}' | b',' | b':' => return Err(format!("a value is missing at byte {}", self.place - 1)),
                _ => {
                    let rest = &self.line.as_bytes()[self.place..];
                    let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:[]{}\"".contains(byte);
                    self.place += rest.iter().position(ends).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Passes over a text whose first quotation mark was read.
    fn skip_text(&mut self) -> Result<(), String> {
        while self.until_special()?.1 == b'\\' {
            self.place += 1;
        }
        Ok(())
    }

    fn text(&mut self) -> Result<Cow<'l, str>, String> {
        self.expect(b'"')?;
        let mut text = Cow::Borrowed("");
        loop {
            let (part, special) = self.until_special()?;
            text += part;
            if special == b'"' {
                return Ok(text);
            }
            text.to_mut().push(self.escaped()?);
        }
    }

    /// What stands before the next quotation mark or backslash, and which of them it is; it is passed over.
    fn until_special(&mut self) -> Result<(&'l str, u8), String> {
        let rest = self.line.get(self.place..).unwrap_or_default();
        let length = rest.bytes().position(|byte| byte == b'"' || byte == b'\\');
        let length = length.ok_or("a text has no end; JSONL has a whole object in each line")?;
        self.place += length + 1;
        Ok((&rest[..length], rest.as_bytes()[length]))
    }

    /// The character whose backslash was read.
    fn escaped(&mut self) -> Result<char, String> {
        let wrong = format!("what stands behind \\ at byte {} has no meaning", self.place);
        let code = *self.line.as_bytes().get(self.place).ok_or_else(|| wrong.clone())?;
        self.place += 1;
        Ok(match code {
            b'"' | b'\\' | b'/' => char::from(code),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit().ok_or_else(|| wrong.clone())?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) {
                    let behind = self.place;
                    let escape = self.line.as_bytes()[behind..].starts_with(b"\\u");
                    self.place += if escape { 2 } else { 0 };
                    match self.unit().filter(|second| escape && (0xdc00..0xe000).contains(second)) {
                        Some(second) => units.push(second),
                        // Whatever comes next is not its other half.
                        None => self.place = behind,
                    }
                }
                char::decode_utf16(units).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(wrong),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.line.get(self.place..self.place + 4)?;
        let unit = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16))?;
        self.place += 4;
        unit.ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(line: &str) -> String {
        match field(line, "text") {
            Ok(Field::Text(text)) => text.into_owned(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_nobody_asked_for_is_not_looked_at() {
        for value in
            ["NaN", "-Infinity", "1e999", "007", "{\"text\": \"other\"}", "\"\\ud83d\"", "\"\\\\\"", "\"}\\\"{\""]
        {
            assert_eq!(text(&format!("{{\"score\": {value}, \"text\": \"whole\", \"again\":{value}}}")), "whole");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text(&format!("{{\"a\":{deep},\"text\":\"whole\"}}")), "whole");
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        assert_eq!(text(r#"{"text": "a\ud83db"}"#), "a\u{fffd}b");
        assert_eq!(text(r#"{"text": "\ude00\ud83d"}"#), "\u{fffd}\u{fffd}");
        assert_eq!(text(r#"{"text": "\ud83d\u0041"}"#), "\u{fffd}A");
        assert_eq!(text(r#"{"text": "\ud83d\ud83d\ude00"}"#), "\u{fffd}\u{1f600}");
    }

    #[test]
    fn keys_reach_into_objects_and_the_very_name_goes_first() {
        let of = |line, key| field(line, key).unwrap();
        let nested = r#"{"doc": {"id": 7, "text": "inner"}, "text": null}"#;
        assert_eq!(of(nested, "doc.text"), Field::Text("inner".into()));
        assert_eq!((of(nested, "text"), of(nested, "doc.id")), (Field::Null, Field::Other));
        assert_eq!((of(nested, "doc.none"), of("{}", "text")), (Field::Missing, Field::Missing));
        let both = r#"{"a.b": "outer", "a": {"b": "inner"}, "\u0061.b": "last"}"#;
        assert_eq!(of(both, "a.b"), Field::Text("last".into()));
        assert_eq!(names(nested), ["doc.id", "doc.text", "text"]);
    }

    #[test]
    fn what_is_no_object_or_breaks_off_is_refused() {
        for (line, expected) in [
            ("not json", "not JSON"),
            ("[1]", "not a JSON object"),
            ("\"text\"", "not a JSON object"),
            ("{\"te", "a text has no end"),
            ("{", "breaks off; JSONL has a whole object in each line"),
            ("{\"text\": \"x\"", "breaks off"),
            ("{\"text\": }", "a value is missing"),
            ("{\"text\" \"x\"}", "there is no : at byte 8"),
            ("{\"a\": [1, \"text\": \"x\"}", "breaks off"),
            ("{\"text\": \"\\x\"}", "has no meaning"),
            ("{\"text\": \"\\u12\"}", "has no meaning"),
            ("{\"text\": \"\\", "has no meaning"),
            ("{\"text\": \"x\"} {\"text\": \"y\"}", "stands behind the object, from byte 14 on"),
        ] {
            let message = field(line, "text").unwrap_err();
            assert!(message.contains(expected), "{line}: {message}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let object = prop::collection::vec((".*", inner), 0..4).prop_map(|fields| fields.into_iter().collect());
            prop_oneof![list, object]
        })
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_read_alike(before in value(), text in ".*", after in value(), pretty: bool) {
            let object = json!({ "before": before, "text": text, "after": after });
            let line = if pretty { format!("{object:#}") } else { object.to_string() };
            prop_assert_eq!(field(&line, "text").unwrap(), Field::Text(text.into()));
        }

        #[test]
        fn no_line_makes_it_panic(line in "[\\[\\]{}\",:\\\\u0-9a-f \u{e9}]*") {
            let _ = (field(&format!("{{{line}"), "a"), names(&line));
        }
    }
}
