//! What is asked of a document.

use minijinja::Value as Jinja;
use serde::Deserialize;
use serde_json::Value;

use super::Task;
use crate::metrics::Metric;
use crate::python::count_words;
use crate::template::{Expression, Template};

/// What is asked of a document: templates give texts, expressions lists and numbers. Both see the document's fields, and
/// `variant` in a file with several tasks.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Prompt {
    /// Which of several continuations follows a context?
    Choices {
        /// Template of what stands before all shots.
        description: Option<String>,
        /// Template of the context.
        context: String,
        /// Expression for the list of choices.
        choices: String,
        /// Template of a choice, which it sees as `choice`; without one it is taken as it is.
        choice: Option<String>,
        /// Expression for the place of the right choice, from 0.
        answer: Option<String>,
        /// Expression for a list with 1 for each choice that is true and 0 for the others.
        labels: Option<String>,
        #[serde(default = "one_space")]
        delimiter: String,
        #[serde(default = "blank_line")]
        between: String,
    },
    /// Behind which of several contexts does a continuation follow?
    Contexts {
        /// Template of what stands before all shots.
        description: Option<String>,
        /// Expression for the list of contexts.
        contexts: String,
        /// Template of the continuation.
        continuation: String,
        /// Expression for the place of the right context, from 0.
        answer: String,
        #[serde(default = "one_space")]
        delimiter: String,
        #[serde(default = "blank_line")]
        between: String,
    },
    /// How probable is a continuation?
    Continuation {
        /// Template of what stands before all shots.
        description: Option<String>,
        /// Template of the context.
        context: String,
        /// Template of the continuation, with the space before it.
        continuation: String,
        #[serde(default = "one_space")]
        delimiter: String,
        #[serde(default = "blank_line")]
        between: String,
    },
    /// How probable is a text as a whole?
    Text {
        /// Template of the text.
        text: String,
        /// Expression for the text whose words and bytes are counted, if it is another one.
        counted: Option<String>,
    },
}

fn one_space() -> String {
    " ".to_owned()
}

fn blank_line() -> String {
    "\n\n".to_owned()
}

impl Prompt {
    /// Whether `metric` can be measured.
    pub(super) fn check(&self, metric: Metric) -> Result<(), String> {
        let fits = match self {
            Self::Choices { answer, labels, .. } => match metric {
                Metric::Acc | Metric::AccNorm if answer.is_none() => return Err(needs(metric, "answer")),
                Metric::Mc2 if labels.is_none() => return Err(needs(metric, "labels")),
                _ => metric.is_of_choices(),
            },
            Self::Contexts { .. } => metric == Metric::Acc,
            Self::Continuation { .. } => matches!(metric, Metric::Acc | Metric::Perplexity),
            Self::Text { .. } => metric.is_of_text(),
        };
        if fits { Ok(()) } else { Err(format!("the metric {:?} does not fit a prompt of this kind", metric.key())) }
    }
}

fn needs(metric: Metric, key: &str) -> String {
    format!("the metric {:?} needs `prompt.{key}`", metric.key())
}

/// A document as the model gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The context of each continuation.
    pub contexts: Vec<String>,
    /// What is scored.
    pub continuations: Vec<String>,
    /// Characters of each choice, without the delimiter.
    pub lengths: Vec<usize>,
    /// The place of the right one.
    pub answer: Option<usize>,
    /// Which ones are true.
    pub labels: Option<Vec<bool>>,
    /// Words and bytes that a perplexity is taken over.
    pub counted: [usize; 2],
    /// Whether it is a whole text, scored in windows.
    pub is_text: bool,
}

/// A task's templates, ready to render its documents.
pub struct Renderer {
    description: Option<Template>,
    question: Question,
    delimiter: String,
    between: String,
    variant: Option<String>,
}

#[expect(clippy::large_enum_variant, reason = "a task has one")]
enum Question {
    Choices {
        context: Template,
        choices: Expression,
        choice: Option<Template>,
        answer: Option<Expression>,
        labels: Option<Expression>,
    },
    Contexts {
        contexts: Expression,
        continuation: Template,
        answer: Expression,
    },
    Continuation {
        context: Template,
        continuation: Template,
    },
    Text {
        text: Template,
        counted: Option<Expression>,
    },
}

impl Renderer {
    /// Reads the templates of `task`.
    ///
    /// # Errors
    /// If one of them is none; which one, and why.
    pub fn new(task: &Task) -> Result<Self, crate::EvalError> {
        Self::compile(task).map_err(|reason| crate::EvalError::Task { file: task.file.clone(), reason })
    }

    fn compile(task: &Task) -> Result<Self, String> {
        let template = |key: &str, source: &str| Template::new(source).map_err(|e| format!("prompt.{key}: {e}"));
        let expression = |key: &str, source: &str| Expression::new(source).map_err(|e| format!("prompt.{key}: {e}"));
        let optional =
            |key: &str, source: &Option<String>| source.as_deref().map(|source| expression(key, source)).transpose();
        let (question, description, delimiter, between) = match &task.prompt {
            Prompt::Choices { description, context, choices, choice, answer, labels, delimiter, between } => {
                let question = Question::Choices {
                    context: template("context", context)?,
                    choices: expression("choices", choices)?,
                    choice: choice.as_deref().map(|choice| template("choice", choice)).transpose()?,
                    answer: optional("answer", answer)?,
                    labels: optional("labels", labels)?,
                };
                (question, description.as_deref(), delimiter.as_str(), between.as_str())
            }
            Prompt::Contexts { description, contexts, continuation, answer, delimiter, between } => {
                let question = Question::Contexts {
                    contexts: expression("contexts", contexts)?,
                    continuation: template("continuation", continuation)?,
                    answer: expression("answer", answer)?,
                };
                (question, description.as_deref(), delimiter.as_str(), between.as_str())
            }
            Prompt::Continuation { description, context, continuation, delimiter, between } => {
                let (context, continuation) = (template("context", context)?, template("continuation", continuation)?);
                let question = Question::Continuation { context, continuation };
                (question, description.as_deref(), delimiter.as_str(), between.as_str())
            }
            Prompt::Text { text, counted } => {
                let question = Question::Text { text: template("text", text)?, counted: optional("counted", counted)? };
                (question, None, "", "")
            }
        };
        Ok(Self {
            description: description.map(|description| template("description", description)).transpose()?,
            question,
            delimiter: delimiter.to_owned(),
            between: between.to_owned(),
            variant: task.variant.clone(),
        })
    }

    /// Renders `document` behind `shots`.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn render(&self, document: &Value, shots: &[Value]) -> Result<Rendered, String> {
        let fields = self.fields(document);
        let mut beginning = self.description.as_ref().map_or(Ok(String::new()), |template| template.render(&fields))?;
        for shot in shots {
            beginning += &self.shot(shot).map_err(|e| format!("a shot: {e}"))?;
        }
        let plain = |contexts, continuations: Vec<String>| Rendered {
            contexts,
            lengths: continuations.iter().map(|text| text.chars().count()).collect(),
            continuations,
            answer: None,
            labels: None,
            counted: [0; 2],
            is_text: false,
        };
        match &self.question {
            Question::Choices { context, labels, answer, .. } => {
                let choices = self.choices(&fields)?;
                let context = beginning + &context.render(&fields).map_err(of("context"))?;
                let answer = answer.as_ref().map(|answer| place(answer, &fields, choices.len())).transpose()?;
                let labels = labels.as_ref().map(|labels| truths(labels, &fields, choices.len())).transpose()?;
                let mut rendered = plain(vec![context; choices.len()], choices);
                rendered.continuations.iter_mut().for_each(|text| text.insert_str(0, &self.delimiter));
                Ok(Rendered { answer, labels, ..rendered })
            }
            Question::Contexts { contexts, continuation, answer } => {
                let contexts = texts(contexts, &fields).map_err(of("contexts"))?;
                let answer = place(answer, &fields, contexts.len())?;
                let continuation = continuation.render(&fields).map_err(of("continuation"))?;
                let continuations = vec![format!("{}{continuation}", self.delimiter); contexts.len()];
                let contexts = contexts.into_iter().map(|context| format!("{beginning}{context}")).collect();
                Ok(Rendered { answer: Some(answer), ..plain(contexts, continuations) })
            }
            Question::Continuation { context, continuation } => {
                let context = beginning + &context.render(&fields).map_err(of("context"))?;
                Ok(plain(vec![context], vec![continuation.render(&fields).map_err(of("continuation"))?]))
            }
            Question::Text { text, counted } => {
                let text = text.render(&fields).map_err(of("text"))?;
                let counted = counted.as_ref().map(|counted| string(&counted.value(&fields)?)).transpose();
                let counted = counted.map_err(of("counted"))?;
                let counted = counted.as_deref().unwrap_or(&text);
                let counted = [count_words(counted), counted.len()];
                Ok(Rendered { counted, is_text: true, ..plain(vec![String::new()], vec![text]) })
            }
        }
    }

    /// A document with its right answer.
    fn shot(&self, document: &Value) -> Result<String, String> {
        let fields = self.fields(document);
        let (question, answer) = match &self.question {
            Question::Choices { context, answer, .. } => {
                let mut choices = self.choices(&fields)?;
                let answer =
                    answer.as_ref().ok_or_else(|| "the task has no `prompt.answer`, which shots need".to_owned())?;
                let answer = choices.swap_remove(place(answer, &fields, choices.len())?);
                (context.render(&fields).map_err(of("context"))?, answer)
            }
            Question::Contexts { contexts, continuation, answer } => {
                let mut contexts = texts(contexts, &fields).map_err(of("contexts"))?;
                let context = contexts.swap_remove(place(answer, &fields, contexts.len())?);
                (context, continuation.render(&fields).map_err(of("continuation"))?)
            }
            Question::Continuation { context, continuation } => (
                context.render(&fields).map_err(of("context"))?,
                continuation.render(&fields).map_err(of("continuation"))?,
            ),
            Question::Text { .. } => return Err("a task that scores whole texts takes no shots".to_owned()),
        };
        Ok([question.as_str(), &self.delimiter, &answer, &self.between].concat())
    }

    fn choices(&self, fields: &Jinja) -> Result<Vec<String>, String> {
        let Question::Choices { choices, choice, .. } = &self.question else { return Ok(Vec::new()) };
        let texts = texts(choices, fields).map_err(of("choices"))?;
        let Some(template) = choice else { return Ok(texts) };
        let render = |text: String| template.render(&minijinja::context! { choice => text, ..fields.clone() });
        texts.into_iter().map(render).collect::<Result<_, _>>().map_err(of("choice"))
    }

    fn fields(&self, document: &Value) -> Jinja {
        let fields = Jinja::from(minijinja::value::Serde(document));
        match &self.variant {
            Some(variant) => minijinja::context! { variant, ..fields },
            None => fields,
        }
    }
}

/// Says which key of the prompt an error concerns.
fn of(key: &'static str) -> impl Fn(String) -> String {
    move |error| format!("prompt.{key}: {error}")
}

fn string(value: &Jinja) -> Result<String, String> {
    if value.is_undefined() {
        return Err("a text of it is not there".to_owned());
    }
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text"))
}

/// A list of at least one text.
fn texts(expression: &Expression, fields: &Jinja) -> Result<Vec<String>, String> {
    let value = expression.value(fields)?;
    let wrong = || format!("{value} is no list of texts");
    // A text would be a list of its characters.
    let items = if value.as_str().is_some() { Err(wrong()) } else { value.try_iter().map_err(|_| wrong()) }?;
    let texts = items.map(|item| string(&item)).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() { Err("the list is empty".to_owned()) } else { Ok(texts) }
}

/// The place of the answer among `count`.
fn place(expression: &Expression, fields: &Jinja, count: usize) -> Result<usize, String> {
    let value = expression.value(fields).map_err(of("answer"))?;
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let place = number.and_then(|number| usize::try_from(number).ok()).filter(|&place| place < count);
    place
        .ok_or_else(|| format!("prompt.answer: {value:?} is no place among {count}, from 0 on; is the answer missing?"))
}

fn truths(expression: &Expression, fields: &Jinja, count: usize) -> Result<Vec<bool>, String> {
    let value = expression.value(fields).map_err(of("labels"))?;
    let wrong = || format!("prompt.labels: {value} is no list of {count} times 0 or 1");
    let labels = value.try_iter().map_err(|_| wrong())?;
    let labels: Vec<bool> = labels.map(|label| label.as_i64() == Some(1)).collect();
    if labels.len() == count && labels.contains(&true) { Ok(labels) } else { Err(wrong()) }
}
