//! Templates in Jinja, set up as transformers sets them up, and bounded.

use std::fmt::Write;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json::to_json;
use super::{ChatError, MAX_TEMPLATE_BYTES, Message};

/// A template with what it knows beside the conversation.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    source: Arc<str>,
    bos: Arc<str>,
    eos: Arc<str>,
}

/// Steps (or 64 bytes each) for whatever a template does once, and for each message. The longest ones in the field take some hundreds.
const FUEL: u64 = 1 << 20;
const FUEL_PER_MESSAGE: u64 = 1 << 12;

impl Jinja {
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(ChatError::TooLong { bytes: source.len() });
        }
        let jinja = Self { source: without_generation(source).into(), bos: bos.into(), eos: eos.into() };
        environment(0).template_from_str(&jinja.source).map_err(|e| error(&e))?;
        Ok(jinja)
    }

    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        let environment = environment(FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + bytes as u64);
        // A token that there is none of is not defined.
        let token = |text: &str| if text.is_empty() { Value::UNDEFINED } else { text.into() };
        let turn =
            |Message { role, content }: &Message| context! { role => role.as_str(), content => content.as_str() };
        let turns: Vec<Value> = messages.iter().map(turn).collect();
        let values = context! {
            messages => turns,
            add_generation_prompt => add_generation_prompt,
            bos_token => token(&self.bos),
            eos_token => token(&self.eos),
            tools => (),
            documents => (),
        };
        let template = environment.template_from_str(&self.source).map_err(|e| error(&e))?;
        template.render(values).map_err(|e| error(&e))
    }
}

/// What transformers gives to templates. Without a loader and without `include` and `import` they reach no files.
fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(fuel));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// What a template says of a conversation that it does not take.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(reason: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(reason)))
}

/// Today, in UTC: templates tell models the date.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = now().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "this system does not tell the time"))?;
    let mut text = String::new();
    let written = write!(text, "{}", now.format(format));
    written.map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no format of a date")))?;
    Ok(text)
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn now() -> Option<DateTime<Utc>> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    DateTime::from_timestamp(i64::try_from(since.as_secs()).ok()?, 0)
}

/// A browser would have to be asked through JavaScript.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn now() -> Option<DateTime<Utc>> {
    None
}

/// `{% generation %}` marks the answers for training in transformers; their text is what it encloses. The same as a condition that
/// always holds, white space included.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let sign = tag.len() - name.len();
        let (word, condition) = match name {
            _ if name.starts_with("endgeneration") => ("endgeneration", "endif"),
            _ if name.starts_with("generation") => ("generation", "if true"),
            _ => ("", ""),
        };
        let behind = &name[word.len()..];
        let is_tag = behind.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        out.push_str(before);
        if !word.is_empty() && is_tag {
            out.push_str(&tag[..sign]);
            out.push_str(condition);
            rest = behind;
        } else {
            rest = tag;
        }
    }
    out.push_str(rest);
    out
}

fn error(e: &Error) -> ChatError {
    if e.kind() == ErrorKind::OutOfFuel {
        return ChatError::Endless;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(inner) = cause {
        if let Some(Raised(reason)) = inner.downcast_ref() {
            return ChatError::Raised { reason: reason.clone() };
        }
        if inner.downcast_ref::<Error>().is_some_and(|inner| inner.kind() == ErrorKind::OutOfFuel) {
            return ChatError::Endless;
        }
        cause = inner.source();
    }
    let reason = e.detail().map_or_else(|| e.kind().to_string(), str::to_owned);
    ChatError::Template { line: e.line(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::ChatTemplate;
    use super::*;

    fn render(source: &str) -> Result<String, ChatError> {
        ChatTemplate::from_source(source, "<s>", "</s>")?
            .render(&[Message::user("Hi"), Message::assistant("Yes?")], true)
    }

    #[test]
    fn templates_that_do_not_end_are_stopped() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}",
            "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}",
            "{% set ns = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            "{{ 'x' * 1000000000000 }}",
            "{{ 'x' * 100000000 }}",
            "{{ 'aaaaaaaa'.replace('a', 'bbbbbbbbbbbbbbbb' * 4000000) }}",
        ] {
            let refused = render(source).unwrap_err();
            assert!(matches!(refused, ChatError::Endless | ChatError::Template { .. }), "{source}: {refused}");
        }
    }

    #[test]
    fn what_a_template_raises_is_passed_on() {
        let raised =
            render("{% if messages[0].role != 'system' %}{{ raise_exception('begin with a system turn') }}{% endif %}");
        assert_eq!(raised, Err(ChatError::Raised { reason: "begin with a system turn".to_owned() }));
        let in_macro = render("{% macro no() %}{{ raise_exception('no') }}{% endmacro %}{{ no() | trim }}");
        assert_eq!(in_macro, Err(ChatError::Raised { reason: "no".to_owned() }));
    }

    #[test]
    fn files_cannot_be_reached() {
        for source in [
            "{% include '/etc/passwd' %}",
            "{% import '/etc/passwd' as a %}",
            "{% extends '/etc/passwd' %}",
            "{{ open('/etc/passwd').read() }}",
        ] {
            assert!(matches!(render(source), Err(ChatError::Template { line: Some(1), .. })), "{source}");
        }
    }

    #[test]
    fn long_and_broken_templates_are_refused() {
        assert_eq!(render(&" ".repeat(1 << 20)), Err(ChatError::TooLong { bytes: 1 << 20 }));
        let broken = render("a\n{% for message in %}").unwrap_err().to_string();
        assert!(broken.contains("fails in line 2"), "{broken}");
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(matches!(render(&deep), Err(ChatError::Template { .. })));
        let nested = format!("{}{}", "{% if true %}".repeat(10_000), "{% endif %}".repeat(10_000));
        assert!(matches!(render(&nested), Err(ChatError::Template { .. })));
    }

    #[test]
    fn dates_are_written_and_bad_formats_refused() {
        let year = render("{{ strftime_now('%Y') }}").unwrap();
        assert!(year.len() == 4 && year.starts_with("20"), "{year}");
        assert!(matches!(render("{{ strftime_now('%Q') }}"), Err(ChatError::Template { .. })));
    }

    #[test]
    fn generation_is_what_it_encloses() {
        let source = "{% for m in messages %}\n{%- generation -%}\n {{ m.content }}\n{%- endgeneration %}|{% endfor %}{% generation %}{{ 'generation' }}{% endgeneration %}";
        assert_eq!(render(source).unwrap(), "Hi|Yes?|generation");
    }
}
