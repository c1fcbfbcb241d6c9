//! Jinja as tasks are written in: strict about names, with the methods of Python's strings and a few filters of the harness.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use minijinja_contrib::pycompat;
use regex::Regex;

use crate::python::literal;

/// What templates are rendered in, always the same.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_debug(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_unknown_method_callback(method);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("literal", python_literal);
    environment
});

/// The name of a template in its environment.
const NAME: &str = "template";

/// A text with places for the fields of a document.
pub struct Template(Environment<'static>);

/// Something that is computed of the fields of a document.
pub struct Expression(minijinja::Expression<'static, 'static>);

impl Template {
    /// # Errors
    /// What is wrong with the template, and where.
    pub fn new(source: &str) -> Result<Self, String> {
        let mut environment = ENVIRONMENT.clone();
        environment.add_template_owned(NAME, source.to_owned()).map_err(|e| sentence(&e))?;
        Ok(Self(environment))
    }

    /// # Errors
    /// What the template says is wrong with the document.
    pub fn render(&self, document: &Value) -> Result<String, String> {
        self.0.get_template(NAME).and_then(|template| template.render(document)).map_err(|e| sentence(&e))
    }
}

impl Expression {
    /// # Errors
    /// What is wrong with the expression, and where.
    pub fn new(source: &str) -> Result<Self, String> {
        ENVIRONMENT.compile_expression_owned(source.to_owned()).map(Self).map_err(|e| sentence(&e))
    }

    /// # Errors
    /// What the expression says is wrong with the document.
    pub fn value(&self, document: &Value) -> Result<Value, String> {
        let value = self.0.eval(document.clone()).map_err(|e| sentence(&e))?;
        if value.is_undefined() { Err("it is not there".to_owned()) } else { Ok(value) }
    }
}

fn sentence(error: &Error) -> String {
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match (error.line(), error.range().and_then(|range| error.template_source()?.get(range))) {
        (_, Some(place)) if !place.is_empty() => format!("{detail}, in {place:?}"),
        (Some(line), _) => format!("{detail}, in line {line}"),
        _ => detail,
    }
}

/// Methods of Python that values do not have otherwise.
fn method(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.kind(), method, arguments) {
        (_, "index", [wanted]) if wanted.is_undefined() => Err(wrong("what it looks for is not there".to_owned())),
        (ValueKind::Seq, "index", [wanted]) => {
            let place = value.try_iter()?.position(|item| item == *wanted);
            place.map(Value::from).ok_or_else(|| wrong(format!("{wanted} is not in {value}")))
        }
        (ValueKind::String, "index", [wanted]) => {
            let (text, wanted) = (value.as_str().unwrap_or_default(), wanted.as_str().unwrap_or_default());
            let place = text.find(wanted).map(|byte| Value::from(text[..byte].chars().count()));
            place.ok_or_else(|| wrong(format!("{wanted:?} is not in {text:?}")))
        }
        _ => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// `re.sub(pattern, replacement, text)`: the replacement names groups as `\1`.
fn regex_replace(text: &str, pattern: &str, replacement: &str) -> Result<String, Error> {
    let pattern = Regex::new(pattern).map_err(|e| wrong(format!("not a regular expression: {e}")))?;
    static GROUP: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\\(\d)").ok());
    let replacement = replacement.replace('$', "$$");
    let replacement = match &*GROUP {
        Some(group) => group.replace_all(&replacement, "$${$1}").into_owned(),
        None => replacement,
    };
    Ok(pattern.replace_all(text, replacement).into_owned())
}

/// What Python's literal `text` stands for.
fn python_literal(text: &str) -> Result<Value, Error> {
    literal::parse(text)
        .map(|value| Value::from(Serde(value)))
        .map_err(|e| wrong(format!("not a literal of Python: {e}")))
}

fn wrong(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}
